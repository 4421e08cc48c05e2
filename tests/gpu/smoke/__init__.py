"""The checks that scripts/gpu_smoke runs: what only running on a GPU can answer, one question each."""
