"""Scorers that somebody else brings: toxicity, a reward model, a judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from neft_zoo.errors import NoiseError
from neft_zoo.evaluation.text import mean

# Takes texts and returns as many finite numbers.
Scorer: TypeAlias = Callable[[Sequence[str]], Sequence[float]]


def score_answers(scorers: Mapping[str, Scorer], texts: Sequence[str]) -> dict[str, Any]:
    """Return mean and values of every scorer, in its own unit.

    Raises:
        NoiseError: if a scorer does not return one finite number per text.
    """
    found = {}
    for name, scorer in scorers.items():
        values = [float(value) for value in scorer(texts)]
        if len(values) != len(texts) or not all(map(math.isfinite, values)):
            raise NoiseError(f"scorer {name!r} must return {len(texts)} finite numbers, got {values[:4]} ...")
        found[name] = {"mean": mean(values), "values": values}
    return found
