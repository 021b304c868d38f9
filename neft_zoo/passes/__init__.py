"""One forward pass of any model with noise: hooks, model parts, rounding and divergences."""
