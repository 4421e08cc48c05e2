"""Whether gradient accumulation equals the large batch: compares the two gradients, and finds why they differ."""
