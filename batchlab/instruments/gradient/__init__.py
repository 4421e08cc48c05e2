"""The gradient: its size, its noise, how it differs from example to example."""
