"""Pairwise comparison of two models' answers: outputs in AlpacaEval's format, judges, win rates.

`generating` writes a model's outputs; `pairs` matches two output files; `endpoint`, `judges` and `rating_page` judge
pairs; `winrate` and `length_control` compute win rates.
"""
