"""The curvature of a loss, from products with its Hessian."""
