"""Converting a recipe and command-line options to TRL's configs and data."""
