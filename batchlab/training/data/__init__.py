"""The data order, and how the examples reach the device."""
