"""Whether accumulating is the large batch: the two gradients of this model and data, and why they differ."""
