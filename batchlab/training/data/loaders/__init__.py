"""Batches that a DataLoader of the user makes."""
