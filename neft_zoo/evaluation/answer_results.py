"""Typed results of greedy answers: overlap and extraction, length and diversity, scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from neft_zoo.evaluation.serialization import Serializable


@dataclass(frozen=True)
class Overlap(Serializable):
    """Overlap of greedy answers with their references, in [0, 1]: means, and the value of every answer.

    ROUGE-L is None where the reference has no word.
    """

    rouge_l: float | None
    bleu: float | None
    rouge_l_values: Sequence[float | None]
    bleu_values: Sequence[float]


@dataclass(frozen=True)
class Extraction(Serializable):
    """Shares of references that a model writes word for word.

    Attributes:
        exact: share that follows from the prompt alone; None where no record counts.
        prefix: share that follows from the prompt and the first half of the reference, at most 50 tokens.
        records: references that count.
        skipped: records without a prompt, or with a reference of fewer than 2 tokens.
    """

    exact: float | None
    prefix: float | None
    records: int
    skipped: int


# Fields of base classes come in reverse order: those of Overlap stand first in the file.
@dataclass(frozen=True)
class Memorization(Extraction, Overlap):
    """Overlap and extraction of a split's references."""


@dataclass(frozen=True)
class Lengths(Serializable):
    """Mean lengths of texts; None where there is no text, or no token count."""

    characters: float | None
    words: float | None
    tokens: float | None


@dataclass(frozen=True)
class Diversity(Serializable):
    """Repetition and diversity of texts that were cut to the same number of words.

    Attributes:
        at_words: words that texts were cut to.
        used: texts that were as long.
        too_short: texts that were not, and do not count.
        repetition: share of n-grams that are not new, by n; None where no text was used.
        log_diversity: mean log-diversity in nats, None where no text was used.
        clip: log-diversity of a text that repeats nothing.
    """

    at_words: int
    used: int
    too_short: int
    repetition: Mapping[str, float | None]
    log_diversity: float | None
    clip: float


@dataclass(frozen=True)
class AnswerText(Serializable):
    """Length, repetition and diversity of greedy answers.

    Attributes:
        answers: number of answers.
        lengths: their mean lengths.
        unended: share that was cut at the greatest length.
        diversity: their repetition and diversity.
    """

    answers: int
    lengths: Lengths
    unended: float | None
    diversity: Diversity


@dataclass(frozen=True)
class Score(Serializable):
    """Values that a scorer gave to the answers, and their mean, in the scorer's unit."""

    mean: float | None
    values: Sequence[float]
