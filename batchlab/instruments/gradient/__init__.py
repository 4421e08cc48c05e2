"""The gradient: its norm, its noise, how it varies between examples."""
