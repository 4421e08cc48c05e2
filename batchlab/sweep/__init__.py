"""Sweeps: their points, a process for each, and the summary of the results."""
