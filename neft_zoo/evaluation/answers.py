"""Greedy answers to the prompts of each split, and their measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from neft_zoo.evaluation.answer_results import AnswerText, Memorization
from neft_zoo.evaluation.generation import Answer, generate
from neft_zoo.evaluation.memorization import extraction, overlap
from neft_zoo.evaluation.options import WORDS, Options
from neft_zoo.evaluation.records import exchange, prompt_tokens
from neft_zoo.evaluation.subject import Row, Subject
from neft_zoo.evaluation.text import diversity, lengths, mean


@dataclass(frozen=True)
class AnsweredSplit:
    """The records of a split that have a prompt, and their greedy answers."""

    rows: Sequence[Row]
    answers: Sequence[Answer]

    @property
    def texts(self) -> list[str]:
        """The answers as text."""
        return [answer.text for answer in self.answers]


def answer(subject: Subject, rows: Sequence[Row], options: Options, min_new_tokens: int = 0) -> AnsweredSplit:
    """Return greedy answers to the prompts of rows; records without a prompt, or with an empty one, are skipped."""
    rows = [row for row in rows if exchange(row.record) is not None]
    pairs = [(row, prompt_tokens(subject.tokenizer, row.record, subject.template)) for row in rows]
    rows, prompts = [row for row, prompt in pairs if prompt], [prompt for _, prompt in pairs if prompt]
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
    return AnsweredSplit(rows, answers)


def answer_texts(answers: Mapping[str, AnsweredSplit], options: Options) -> dict[str, AnswerText]:
    """Return length, repetition and diversity of the answers, by split."""
    return {split: answer_text(answered, options) for split, answered in answers.items() if answered.rows}


def answer_text(answered: AnsweredSplit, options: Options) -> AnswerText:
    """Return length, repetition and diversity of the answers of a split."""
    return AnswerText(
        answers=len(answered.answers),
        lengths=lengths(answered.texts, [len(answer.tokens) for answer in answered.answers]),
        unended=mean([float(not answer.ended) for answer in answered.answers]),
        diversity=diversity(answered.texts, options.words or WORDS, options.clip),
    )


def memorization(subject: Subject, answers: Mapping[str, AnsweredSplit], options: Options) -> dict[str, Memorization]:
    """Return overlap and extraction by split; test records, which were not trained on, serve as the baseline."""
    by_split = {}
    for split, answered in answers.items():
        references = [_reference(row) for row in answered.rows]
        if references:
            extracted = extraction(subject, subject.rows[split])
            by_split[split] = Memorization(**vars(overlap(answered.texts, references)), **vars(extracted))
    return by_split


def length_controls(subject: Subject, plain: AnsweredSplit, longer: str, options: Options) -> dict[str, AnswerText]:
    """Return the text measures of plain answers, of answers asked to be longer, and of answers with the end blocked.

    A record counts only if its longer prompt still fits into its row, so that all three are about the same questions.

    Args:
        subject: the model.
        plain: its answers to the test prompts.
        longer: name of the split with test prompts that ask for a longer answer.
        options: settings of the evaluation.
    """
    fitting = {row.index: row for row in subject.rows[longer]}
    kept = [i for i, row in enumerate(plain.rows) if row.index in fitting]
    if not kept:
        return {}
    rows, answers = [plain.rows[i] for i in kept], [plain.answers[i] for i in kept]
    asking = [fitting[row.index] for row in rows]
    return {
        "plain": answer_text(AnsweredSplit(rows, answers), options),
        "asked_for_longer": answer_text(answer(subject, asking, options), options),
        "end_blocked": answer_text(answer(subject, rows, options, options.min_new_tokens), options),
    }


def _reference(row: Row) -> str:
    prompt_and_reference = exchange(row.record)
    assert prompt_and_reference is not None
    return prompt_and_reference[1]
