"""Answers to the prompts of each split, and what is measured of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neft_zoo.evaluation.generation import Answer, generate
from neft_zoo.evaluation.memorization import extraction, overlap
from neft_zoo.evaluation.options import WORDS, Options
from neft_zoo.evaluation.records import exchange, prompt_tokens
from neft_zoo.evaluation.subject import Row, Subject
from neft_zoo.evaluation.text import diversity, lengths, mean


@dataclass(frozen=True)
class Answered:
    """Rows that have a prompt, and the greedy answers to them."""

    rows: Sequence[Row]
    answers: Sequence[Answer]

    @property
    def texts(self) -> list[str]:
        """The answers as text."""
        return [each.text for each in self.answers]


@dataclass(frozen=True)
class Answers:
    """What was answered in each split."""

    splits: Mapping[str, Answered]

    def texts(self, split: str) -> list[str]:
        """Return the answers of a split, none if it was not asked."""
        return self.splits[split].texts if split in self.splits else []


def answer(subject: Subject, split: str, options: Options, min_new_tokens: int = 0) -> Answered:
    """Answer the first prompts of a split greedily; records without a prompt are left out."""
    rows = [row for row in subject.rows[split][: options.answers] if exchange(row.record) is not None]
    prompts = [prompt_tokens(subject.tokenizer, row.record, subject.template) for row in rows]
    with subject.autocast():
        answers = generate(
            subject.model,
            subject.tokenizer,
            prompts,
            max_new_tokens=max(options.max_new_tokens, min_new_tokens),
            min_new_tokens=min_new_tokens,
            repetition_penalty=options.repetition_penalty,
            batch_size=subject.batch_size,
            progress=subject.progress,
        )
    return Answered(rows, answers)


def describe(answers: Answers, options: Options) -> dict[str, Any]:
    """Return length, repetition and diversity of the answers of each split."""
    return {split: _described(answered, options) for split, answered in answers.splits.items() if answered.rows}


def memorized(subject: Subject, answers: Answers, options: Options) -> dict[str, Any]:
    """Return overlap with the references and extraction, for training records and, as the floor, test records."""
    found = {}
    for split, answered in answers.splits.items():
        references = [_reference(row) for row in answered.rows]
        if references:
            found[split] = overlap(answered.texts, references) | extraction(subject, subject.rows[split])
    return found


def length_controls(subject: Subject, answers: Answers, longer: str, options: Options) -> dict[str, Any]:
    """Return what answers are like as they are, when a longer one is asked for, and when the end is blocked."""
    if not answers.splits["test"].rows:
        return {}
    blocked = answer(subject, "test", options, min_new_tokens=options.min_new_tokens)
    return {
        "plain": _described(answers.splits["test"], options),
        "asked_for_longer": _described(answer(subject, longer, options), options),
        "end_blocked": _described(blocked, options),
    }


def _described(answered: Answered, options: Options) -> dict[str, Any]:
    return {
        "answers": len(answered.answers),
        "lengths": lengths(answered.texts, [len(each.tokens) for each in answered.answers]),
        "unended": mean([float(not each.ended) for each in answered.answers]),
        "diversity": diversity(answered.texts, options.words or WORDS, options.clip),
    }


def _reference(row: Row) -> str:
    found = exchange(row.record)
    assert found is not None
    return found[1]
