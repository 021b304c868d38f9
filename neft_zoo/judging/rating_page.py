"""A page on which a person compares answers blind, and reading what the page exports."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from neft_zoo.errors import NoiseError, shown
from neft_zoo.evaluation.report import whole
from neft_zoo.judging.json_files import excerpt, read_json
from neft_zoo.judging.pairs import Judgement, Pair

KIND = "neft-zoo ratings"
CHOICES = {"first": 0.0, "second": 1.0, "tie": 0.5}


def write_page(pairs: Sequence[Pair], path: Path, seed: int = 0) -> Path:
    """Write one HTML file that needs no network and does not say whose answer is whose.

    The pairs are shuffled and half of them swapped, by the seed; pairs of equal answers are left out, they are ties.

    Raises:
        NoiseError: if no two answers differ.
    """
    shown_pairs = [pair for pair in pairs if pair.ours != pair.theirs]
    if not shown_pairs:
        raise NoiseError("at least one instruction must have two different answers, but all are equal.")
    order = random.Random(seed)
    order.shuffle(shown_pairs)
    swapped = [i % 2 == 1 for i in range(len(shown_pairs))]
    order.shuffle(swapped)
    questions = [pair.questions()[swap] for pair, swap in zip(shown_pairs, swapped, strict=True)]
    items = [
        {"id": each.key(), "instruction": each.instruction, "first": each.first, "second": each.second}
        for each in questions
    ]
    page = hashlib.sha256("".join(item["id"] for item in items).encode()).hexdigest()[:16]
    # A "<" in an answer must not end the script that holds it.
    data = json.dumps({"kind": KIND, "page": page, "items": items}).replace("<", "\\u003c")
    text = files("neft_zoo.judging").joinpath("page.html").read_text(encoding="utf-8").replace("DATA", data, 1)
    return whole(path, lambda place: place.write_text(text, encoding="utf-8"))


def read_ratings(path: Path, pairs: Sequence[Pair]) -> list[Judgement]:
    """Read what the page exported; a pair that was not rated is missing.

    Raises:
        NoiseError: if it is no export, holds a choice that is not accepted, or rates other answers than these.
    """
    found = read_json(path)
    ratings = found.get("ratings") if isinstance(found, dict) and found.get("kind") == KIND else None
    if not isinstance(ratings, dict):
        raise NoiseError(f"{path} must be an export of the rating page, got {shown(found)}.")
    for choice in ratings.values():
        if choice not in CHOICES:
            raise NoiseError(f"a choice in {path} must be one of {', '.join(CHOICES)}, got {shown(choice)}.")
    known = {each.key() for pair in pairs for each in pair.questions()}
    other = [key for key in ratings if key not in known]
    if other:
        raise NoiseError(f"{path} must rate the answers of OURS and THEIRS, but rates others: {excerpt(other)}.")
    judged = [_judgement(pair, ratings) for pair in pairs]
    if all(each.preference is None for each in judged):
        raise NoiseError(f"{path} must hold at least one rating, got none.")
    return judged


def _judgement(pair: Pair, ratings: dict[str, str]) -> Judgement:
    if pair.ours == pair.theirs:
        return Judgement(pair, 0.5)
    ours_first, theirs_first = (CHOICES.get(ratings.get(each.key(), "")) for each in pair.questions())
    if theirs_first is not None:
        return Judgement(pair, theirs_first, (None, theirs_first))
    return Judgement(pair, None if ours_first is None else 1 - ours_first,
                     (None if ours_first is None else 1 - ours_first, None))  # fmt: skip
