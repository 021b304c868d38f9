"""Running a strategy's passes in a trainer or in a custom training loop."""
