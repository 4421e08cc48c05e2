"""This machine, examined without torch: its GPUs, who uses them, its memory, and how processes end."""
