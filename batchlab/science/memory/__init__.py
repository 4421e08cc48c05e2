"""How memory goes with the micro-batch size, and the largest that fits."""
