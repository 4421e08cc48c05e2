"""How learning rates, steps and speed depend on the batch size."""
