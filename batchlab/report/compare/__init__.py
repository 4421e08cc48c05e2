"""A study compared with another one, and with published figures."""
