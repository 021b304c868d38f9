"""How long, how repetitive and how diverse texts are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

GRAMS = (1, 2, 3, 4)


def repetition(words: Sequence[str], n: int) -> float | None:
    """Return the share of n-grams that are not new, 1 - distinct / all, in [0, 1); None if there is no n-gram."""
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else None


def log_diversity(words: Sequence[str], clip: float = 20.0) -> float | None:
    """Return -log(1 - D) with D = (1 - rep_2)(1 - rep_3)(1 - rep_4), in nats, at most `clip`.

    A text that repeats nothing has D = 1 and would be infinite: it counts as `clip`, which so decides most of the mean
    over good texts. None for fewer than 4 words.
    """
    shares = [repetition(words, n) for n in (2, 3, 4)]
    if any(share is None for share in shares):
        return None
    rest = 1 - math.prod(1 - share for share in shares if share is not None)
    return min(clip, -math.log(rest)) if rest > 0 else clip


def lengths(texts: Sequence[str], tokens: Sequence[int] | None = None) -> dict[str, float | None]:
    """Return the mean length in characters, whitespace-separated words and, where given, tokens."""
    counts = {
        "characters": [len(text) for text in texts],
        "words": [len(text.split()) for text in texts],
        "tokens": list(tokens or ()),
    }
    return {name: mean(values) for name, values in counts.items()}


def diversity(texts: Sequence[str], words: int = 50, clip: float = 20.0) -> dict[str, Any]:
    """Return 1- to 4-gram repetition and log-diversity, as means over texts cut to the same word count.

    Args:
        texts: what is measured, split at whitespace.
        words: length of the cut; shorter texts are dropped and counted.
        clip: log-diversity of a text that repeats nothing.

    Returns:
        `at_words`, `used` and `too_short` (texts), `repetition` by n (shares) and `log_diversity` (nats); None where
        no text was long enough.
    """
    split = [text.split()[:words] for text in texts]
    used = [text for text in split if len(text) == words]
    return {
        "at_words": words,
        "used": len(used),
        "too_short": len(split) - len(used),
        "repetition": {str(n): mean([repetition(text, n) for text in used]) for n in GRAMS},
        "log_diversity": mean([log_diversity(text, clip) for text in used]),
        "clip": clip,
    }


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are there, None if there are none."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None
