"""Figures of a study, made with matplotlib: each has a text alternative, or the reason why it is missing."""
