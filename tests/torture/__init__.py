"""The pieces of the torture: faults, what is done with them, and what must come out all the same."""
