"""The curvature of the loss."""
