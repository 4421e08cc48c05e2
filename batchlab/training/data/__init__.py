"""The order of the examples, and how they come to where they are trained on."""
