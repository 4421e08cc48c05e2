"""Pure arithmetic on numbers: no files, devices, configs, clocks or global random state."""
