"""Custom scorers of answers, such as a toxicity classifier, a reward model or a judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from neft_zoo.errors import NoiseError, shown
from neft_zoo.evaluation.answer_results import Score
from neft_zoo.evaluation.text import mean

# Takes texts and returns one finite number for each.
Scorer: TypeAlias = Callable[[Sequence[str]], Sequence[float]]


def score_answers(scorers: Mapping[str, Scorer], texts: Sequence[str]) -> dict[str, Score]:
    """Return the scores of texts by scorer.

    Raises:
        NoiseError: if a scorer does not return one finite number per text.
    """
    scores = {}
    for name, scorer in scorers.items():
        values = [float(value) for value in scorer(texts)]
        if len(values) != len(texts) or not all(map(math.isfinite, values)):
            raise NoiseError(f"scorer {name!r} must return {len(texts)} finite numbers, got {shown(values)}")
        scores[name] = Score(mean(values), values)
    return scores
