"""Passes of a model outside a step: validations, and what is asked of a task and its model. None leaves a trace."""
