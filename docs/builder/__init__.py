"""What the site shows of the package and of docs/results, made anew whenever it is built."""
