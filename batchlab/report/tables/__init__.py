"""A study as tables: its runs, what may be compared among them, and what others published."""
