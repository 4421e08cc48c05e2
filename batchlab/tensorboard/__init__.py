"""TensorBoard's views of runs and studies, which can be rebuilt from the run folders at any time."""
