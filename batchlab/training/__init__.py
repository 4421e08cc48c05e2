"""Training one run on its device: the loop, the step, the order of the data, the clock."""
