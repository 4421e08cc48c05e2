"""Generalisation: how a model does on examples it was not trained on, and what it has memorised."""
