"""Checks whether a model and its data can be measured: small trials, and how to fix what fails."""
