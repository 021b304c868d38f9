"""Pairs of answers, the questions that a judge is asked about them, and what came of it."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from neft_zoo.errors import NoiseError
from neft_zoo.judging.json_files import Outputs, excerpt


@dataclass(frozen=True)
class Question:
    """Which of two answers is better? A judge says 0 for the first, 1 for the second, 0.5 for neither."""

    instruction: str
    first: str
    second: str

    def key(self, judge: str = "") -> str:
        """Return a hash of all that a verdict depends on: judge, instruction, both answers, their order."""
        text = json.dumps([judge, self.instruction, self.first, self.second])
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Pair:
    """The answers of our model and of the other one to an instruction."""

    instruction: str
    ours: str
    theirs: str

    def questions(self) -> tuple[Question, Question]:
        """Return the question in both orders: ours first, theirs first."""
        return (
            Question(self.instruction, self.ours, self.theirs),
            Question(self.instruction, self.theirs, self.ours),
        )


@dataclass(frozen=True)
class Judgement:
    """What a judge said of a pair.

    Attributes:
        pair: what was judged.
        preference: 1 if ours won, 0 if theirs did, between for ties and split decisions; None if it is missing.
        orders: the same by order, ours first and theirs first; None where there is no verdict or was no question.
    """

    pair: Pair
    preference: float | None
    orders: tuple[float | None, float | None] = (None, None)


def match(ours: Outputs, theirs: Outputs) -> list[Pair]:
    """Pair the answers to the same instructions, in our file's order.

    Raises:
        NoiseError: if one of them answered other instructions.
    """
    for name, missing in (
        ("OURS", [text for text in theirs.answers if text not in ours.answers]),
        ("THEIRS", [text for text in ours.answers if text not in theirs.answers]),
    ):
        if missing:
            raise NoiseError(f"both must answer the same instructions, but {name} lacks {excerpt(missing)}.")
    return [Pair(text, answer, theirs.answers[text]) for text, answer in ours.answers.items()]


def sample(pairs: Sequence[Pair], limit: int | None, seed: int) -> list[Pair]:
    """Return so many pairs at random, in their order; all of them for None."""
    if limit is None or limit >= len(pairs):
        return list(pairs)
    chosen = sorted(random.Random(seed).sample(range(len(pairs)), limit))
    return [pairs[i] for i in chosen]


def annotation(judgement: Judgement, ours: str, theirs: str, judge: str) -> dict[str, Any]:
    """Return a record in AlpacaEval's format, where 2 means that `output_2`, ours, is better and null is missing."""
    pair, preference = judgement.pair, judgement.preference
    return {
        "instruction": pair.instruction,
        "output_1": pair.theirs,
        "generator_1": theirs,
        "output_2": pair.ours,
        "generator_2": ours,
        "annotator": judge,
        "preference": None if preference is None else 1 + preference,
        "orders": [None if each is None else 1 + each for each in judgement.orders],
    }
