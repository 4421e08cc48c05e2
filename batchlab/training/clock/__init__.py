"""The training clock, which excludes time spent measuring and waiting."""
