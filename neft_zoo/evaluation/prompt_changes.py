"""Robustness to the prompt: loss of the reference when only the question is changed."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence

from neft_zoo.evaluation.effect_results import ChangedPrompts, PromptRobustness
from neft_zoo.evaluation.losses import score, summary
from neft_zoo.evaluation.records import Record, with_question
from neft_zoo.evaluation.subject import Row, Subject

TYPING_ERROR_RATE = 0.05  # of letters
KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
STOP_WORDS = frozenset(
    "a an the and or but if of at by for with about to from in on into is are was were be been being am do does did "
    "have has had i you he she it we they me him her us them my your his its our their this that these those what "
    "which who how when where why can could will would shall should may might must there as than so not no".split()
)


def prompt_robustness(subject: Subject, records: Sequence[Record], seed: int = 0) -> PromptRobustness | None:
    """Return the losses of references after changed questions, or None if no record has a prompt.

    Args:
        subject: the model and its data preparation.
        records: the records of its test rows, before conversion to one of TRL's formats.
        seed: of the changes, combined with the record's number.
    """
    longest = subject.settings.max_length or math.inf
    # A changed prompt may have twice the tokens, and must leave room for its reference in the row.
    clean = [row for row in _references(subject, subject.rows["test"]) if 2 * len(row.input_ids) <= longest]
    if not clean:
        return None
    clean_loss = summary(score(subject, clean, what="prompts as they are")).loss
    chosen = {row.index: records[row.index] for row in clean}
    changed = {name: _changed(subject, chosen, name, clean_loss, seed) for name in CHANGES}
    return PromptRobustness(clean_loss=clean_loss, records=len(clean), **changed)


def _changed(
    subject: Subject, records: Mapping[int, Record], name: str, clean_loss: float, seed: int
) -> ChangedPrompts | None:
    variants = []
    for index, record in records.items():
        # Seeded by a string, which `random` hashes identically in every process.
        generator = random.Random(f"{seed} {name} {index}")
        variants.append(with_question(record, lambda text, generator=generator: CHANGES[name](text, generator)))
    altered = sum(variant != record for variant, record in zip(variants, records.values(), strict=True))
    if not altered:
        return None
    rows = _references(subject, subject.tokenized(name, variants))
    loss = summary(score(subject, rows, what=name.replace("_", " "))).loss
    return ChangedPrompts(loss, loss - clean_loss, altered / len(records))


def _references(subject: Subject, rows: Sequence[Row]) -> list[Row]:
    return [graded for row in rows if (graded := subject.graded_reference(row)) is not None]


def typing_errors(text: str, generator: random.Random, rate: float = TYPING_ERROR_RATE) -> str:
    """Return a text in which letters are swapped, doubled, omitted or replaced by a neighbour on the keyboard.

    Args:
        text: the original text.
        generator: determines the errors.
        rate: probability of an error per letter.
    """
    letters, typed, i = list(text), [], 0
    while i < len(letters):
        letter, following = letters[i], letters[i + 1] if i + 1 < len(letters) else ""
        i += 1
        if not letter.isalpha() or generator.random() >= rate:
            typed.append(letter)
            continue
        kind = generator.choice(("swap", "double", "drop", "neighbour"))
        if kind == "swap" and following.isalpha():
            typed += [following, letter]
            i += 1
        elif kind == "neighbour" and letter.lower() in "".join(KEYBOARD):
            typed.append(_neighbour(letter, generator))
        elif kind != "drop":
            typed += [letter, letter]
    return "".join(typed) or text  # without its only letter there would be no prompt


def _neighbour(letter: str, generator: random.Random) -> str:
    row = next(row for row in KEYBOARD if letter.lower() in row)
    at = row.index(letter.lower())
    neighbour = generator.choice([row[i] for i in (at - 1, at + 1) if 0 <= i < len(row)])
    return neighbour.upper() if letter.isupper() else neighbour


def no_stop_words(text: str, generator: random.Random) -> str:
    """Return a text without its English stop words, or unchanged if it has no other words."""
    # Line breaks and other blanks stay, and a space goes with its word.
    parts = [part.split(" ") for part in re.split(r"([^\S ]+)", text)]
    kept = [[word for word in part if word.strip(".,;:!?\"'()").lower() not in STOP_WORDS] for part in parts]
    changed = "".join(map(" ".join, kept))
    return changed if changed.strip() else text


def shuffled_words(text: str, generator: random.Random) -> str:
    """Return a text with its words in random order, and its blanks and line breaks where they were."""
    words = text.split()
    generator.shuffle(words)
    shuffled = iter(words)
    return re.sub(r"\S+", lambda _: next(shuffled), text)


Change = Callable[[str, random.Random], str]
CHANGES: Mapping[str, Change] = {
    "typing_errors": typing_errors,
    "no_stop_words": no_stop_words,
    "shuffled_words": shuffled_words,
}
