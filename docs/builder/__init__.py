"""The parts of the site that are generated from the package and docs/results in every build."""
