"""One point on the device: the loop, the step, the order of the data, the clock."""
