"""Strategies against `none`, paired by seed: grid, runs, statistics, report, search."""
