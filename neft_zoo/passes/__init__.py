"""One forward pass of any model under a noise: hooks, anatomy, rounding, divergences."""
