"""Which batch size to use, and why."""
