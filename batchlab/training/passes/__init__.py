"""Passes of a model outside a step: validation, and checks of a task and its model. None leaves a trace."""
