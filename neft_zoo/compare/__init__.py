"""Comparing strategies with `none`, paired by seed: grid, runs, statistics, report and search."""
