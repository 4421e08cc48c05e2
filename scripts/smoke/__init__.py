"""The checks of scripts/gpu_smoke: what only running on a GPU can answer, one question each."""
