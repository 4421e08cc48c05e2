"""A study beside another one, and beside what others published."""
