"""The zoo: one entry per file, named as the function it registers."""
