"""The checks of scripts/gpu_smoke, each of one question that only a GPU can answer."""
