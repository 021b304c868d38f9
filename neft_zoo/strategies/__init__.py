"""The built-in strategies: one entry per file, named like the function it registers."""
