"""How learning rates, steps and speed go with the batch size."""
