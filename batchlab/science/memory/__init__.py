"""How memory depends on the micro-batch size, and the largest that fits."""
