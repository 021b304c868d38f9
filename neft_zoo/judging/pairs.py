"""Pairs of answers, the questions about them, and their judgements."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from neft_zoo.errors import NoiseError
from neft_zoo.evaluation.serialization import Serializable
from neft_zoo.judging.json_files import Outputs, excerpt


@dataclass(frozen=True)
class Question:
    """The question which of two answers is better; a verdict is 0 for the first, 1 for the second, 0.5 for a tie."""

    instruction: str
    first: str
    second: str

    def key(self, judge: str = "") -> str:
        """Return a hash of what a verdict depends on: judge, instruction, and both answers in order."""
        text = json.dumps([judge, self.instruction, self.first, self.second])
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Pair:
    """Our model's answer and the other model's to one instruction."""

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
    """A judge's preference for a pair.

    Attributes:
        pair: the judged answers.
        preference: 1 if ours won, 0 if theirs did, between for ties and split decisions; None if missing.
        orders: the preference by order, ours first and theirs first; None without a verdict or a question.
    """

    pair: Pair
    preference: float | None
    orders: tuple[float | None, float | None] = (None, None)


def match(ours: Outputs, theirs: Outputs) -> list[Pair]:
    """Return the pairs of answers to the same instructions, in our file's order.

    Raises:
        NoiseError: if the instructions differ.
    """
    for name, missing in (
        ("OURS", [text for text in theirs.answers if text not in ours.answers]),
        ("THEIRS", [text for text in ours.answers if text not in theirs.answers]),
    ):
        if missing:
            raise NoiseError(f"both must answer the same instructions, but {name} lacks {excerpt(missing)}.")
    return [Pair(text, answer, theirs.answers[text]) for text, answer in ours.answers.items()]


def sample(pairs: Sequence[Pair], limit: int | None, seed: int) -> list[Pair]:
    """Return `limit` random pairs in their original order, or all of them for None."""
    if limit is None or limit >= len(pairs):
        return list(pairs)
    chosen = sorted(random.Random(seed).sample(range(len(pairs)), limit))
    return [pairs[i] for i in chosen]


@dataclass(frozen=True)
class Annotation(Serializable):
    """A judgement in AlpacaEval's format, in which 2 means that `output_2`, ours, is preferred.

    Attributes:
        instruction: the instruction.
        output_1: their answer.
        generator_1: their model.
        output_2: our answer.
        generator_2: our model.
        annotator: the judge.
        preference: from 1 (theirs) to 2 (ours); None if missing.
        orders: the preference with ours first and with theirs first.
    """

    instruction: str
    output_1: str
    generator_1: str
    output_2: str
    generator_2: str
    annotator: str
    preference: float | None
    orders: tuple[float | None, float | None]


def annotation(judgement: Judgement, ours: str, theirs: str, judge: str) -> Annotation:
    """Return a judgement in AlpacaEval's format."""
    pair, (ours_first, theirs_first) = judgement.pair, judgement.orders
    return Annotation(
        instruction=pair.instruction,
        output_1=pair.theirs,
        generator_1=theirs,
        output_2=pair.ours,
        generator_2=ours,
        annotator=judge,
        preference=_from_1_to_2(judgement.preference),
        orders=(_from_1_to_2(ours_first), _from_1_to_2(theirs_first)),
    )


def _from_1_to_2(preference: float | None) -> float | None:
    return None if preference is None else 1 + preference
