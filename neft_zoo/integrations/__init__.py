"""Ways into other frameworks, a module for each; none is imported unless its framework is."""
