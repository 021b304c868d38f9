"""Which of two models answers better: outputs in AlpacaEval's format, judges, win rates.

`generating` writes a model's outputs; `matches` pairs two files of them; `endpoint`, `judges` and `human` judge pairs;
`winrate` and `glm` make the numbers.
"""
