"""Length, repetition and diversity of texts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from neft_zoo.evaluation.answer_results import Diversity, Lengths
from neft_zoo.evaluation.words import words

GRAMS = (1, 2, 3, 4)


def repetition(tokens: Sequence[str], n: int) -> float | None:
    """Return the share of repeated n-grams, 1 - distinct / all, in [0, 1); None if there is no n-gram."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else None


def log_diversity(tokens: Sequence[str], clip: float = 20.0) -> float | None:
    """Return -log(1 - D) with D = (1 - rep_2)(1 - rep_3)(1 - rep_4), in nats, at most `clip`.

    A text without repetition has D = 1 and would be infinite: it counts as `clip`, which therefore dominates the mean
    over good texts. Return None for fewer than 4 tokens.
    """
    repetitions = [repetition(tokens, n) for n in (2, 3, 4)]
    if any(share is None for share in repetitions):
        return None
    not_diverse = 1 - math.prod(1 - share for share in repetitions if share is not None)
    return min(clip, -math.log(not_diverse)) if not_diverse > 0 else clip


def lengths(texts: Sequence[str], tokens: Sequence[int] = ()) -> Lengths:
    """Return the mean lengths of texts.

    Args:
        texts: their characters and words are counted.
        tokens: token count of each text, if known.
    """
    return Lengths(
        characters=mean([len(text) for text in texts]),
        words=mean([len(words(text)) for text in texts]),
        tokens=mean(tokens),
    )


def diversity(texts: Sequence[str], at_words: int = 50, clip: float = 20.0) -> Diversity:
    """Return 1- to 4-gram repetition and log-diversity, averaged over texts truncated to the same number of words.

    Args:
        texts: their words are compared.
        at_words: number of words that every text is truncated to; shorter texts are dropped and counted.
        clip: log-diversity of a text without repetition.
    """
    truncated = [words(text)[:at_words] for text in texts]
    used = [text for text in truncated if len(text) == at_words]
    return Diversity(
        at_words=at_words,
        used=len(used),
        too_short=len(truncated) - len(used),
        repetition={str(n): mean([repetition(text, n) for text in used]) for n in GRAMS},
        log_diversity=mean([log_diversity(text, clip) for text in used]),
        clip=clip,
    )


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are not None, or None if there are none."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None
