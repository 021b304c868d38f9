"""Typed results on greedy answers: overlap and extraction, length and diversity, scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from neft_zoo.evaluation.serialization import Serializable


@dataclass(frozen=True)
class Overlap(Serializable):
    """Overlap of greedy answers with their references, in [0, 1]: means, and the value for every answer.

    ROUGE-L is None if the reference has no word, BLEU if it is empty.
    """

    rouge_l: float | None
    bleu: float | None
    rouge_l_values: Sequence[float | None]
    bleu_values: Sequence[float | None]


@dataclass(frozen=True)
class Extraction(Serializable):
    """Shares of references that a model reproduces word for word.

    Attributes:
        exact: share reproduced from the prompt alone; None if no record counts.
        prefix: share reproduced from the prompt and the first half of the reference, at most 50 tokens.
        records: number of references that count.
        skipped: number of records without a prompt, or with a reference of fewer than 2 tokens.
    """

    exact: float | None
    prefix: float | None
    records: int
    skipped: int


# Base classes in reverse order of their fields: those of Overlap come first in the file.
@dataclass(frozen=True)
class Memorization(Extraction, Overlap):
    """Overlap and extraction of a split's references."""


@dataclass(frozen=True)
class Lengths(Serializable):
    """Mean lengths of texts; None without texts or token counts."""

    characters: float | None
    words: float | None
    tokens: float | None


@dataclass(frozen=True)
class Diversity(Serializable):
    """Repetition and diversity of texts truncated to the same number of words.

    Attributes:
        at_words: number of words that texts are truncated to.
        used: number of texts that are long enough.
        too_short: number of texts that are shorter, which do not count.
        repetition: share of repeated n-grams, by n; None if no text was used.
        log_diversity: mean log-diversity in nats; None if no text was used.
        clip: log-diversity of a text without repetition.
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
        unended: share that was truncated at the maximum length.
        diversity: their repetition and diversity.
    """

    answers: int
    lengths: Lengths
    unended: float | None
    diversity: Diversity


@dataclass(frozen=True)
class Score(Serializable):
    """A scorer's values for the answers, and their mean, in the scorer's unit."""

    mean: float | None
    values: Sequence[float]
