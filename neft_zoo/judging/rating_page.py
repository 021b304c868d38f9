"""A page for blind ratings of answers by a person, and reading its export."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from neft_zoo.errors import NoiseError, shown
from neft_zoo.files import make_folder, write_text
from neft_zoo.judging.json_files import excerpt, read_json
from neft_zoo.judging.pairs import Judgement, Pair

KIND = "neft-zoo ratings"
CHOICES = {"first": 0.0, "second": 1.0, "tie": 0.5}


def write_page(pairs: Sequence[Pair], path: Path, seed: int = 0) -> Path:
    """Write one HTML file that needs no network and names no model, and return its path.

    The pairs are shuffled and half of them swapped, by the seed; pairs of equal answers are omitted, since they are
    ties.

    Raises:
        NoiseError: if all pairs have equal answers.
    """
    unequal = [pair for pair in pairs if pair.ours != pair.theirs]
    if not unequal:
        raise NoiseError("at least one instruction must have two different answers, but all are equal.")
    generator = random.Random(seed)
    generator.shuffle(unequal)
    swapped = [i % 2 == 1 for i in range(len(unequal))]
    generator.shuffle(swapped)
    questions = [pair.questions()[swap] for pair, swap in zip(unequal, swapped, strict=True)]
    items = [{"id": question.key(), **vars(question)} for question in questions]
    page = hashlib.sha256("".join(item["id"] for item in items).encode()).hexdigest()[:16]
    # A "<" in an answer must not close the script element.
    data = json.dumps({"kind": KIND, "page": page, "items": items}).replace("<", "\\u003c")
    make_folder(path.parent)
    write_text(path, _template().replace("DATA", data, 1))
    return path


def _template() -> str:
    """Return the page without its data; its content security policy allows only its own script, by hash."""
    text = files("neft_zoo.judging").joinpath("page.html").read_text(encoding="utf-8")
    script = text.partition("<script>")[2].partition("</script>")[0]
    return text.replace("SCRIPT", base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(), 1)


def read_ratings(path: Path, pairs: Sequence[Pair]) -> list[Judgement]:
    """Return the judgements in a page's export; a pair without a rating has a missing judgement.

    Raises:
        NoiseError: if it is not an export, has an invalid choice, or rates other answers.
    """
    export = read_json(path)
    ratings = export.get("ratings") if isinstance(export, dict) and export.get("kind") == KIND else None
    if not isinstance(ratings, dict):
        raise NoiseError(f"{path} must be an export of the rating page, got {shown(export)}.")
    for choice in ratings.values():
        if not isinstance(choice, str) or choice not in CHOICES:
            raise NoiseError(f"a choice in {path} must be one of {', '.join(CHOICES)}, got {shown(choice)}.")
    keys = {question.key() for pair in pairs for question in pair.questions()}
    unknown = [key for key in ratings if key not in keys]
    if unknown:
        raise NoiseError(f"{path} must rate the answers of OURS and THEIRS, but rates others: {excerpt(unknown)}.")
    judgements = [_judgement(pair, ratings) for pair in pairs]
    if all(judgement.preference is None for judgement in judgements):
        raise NoiseError(f"{path} must hold at least one rating, got none.")
    return judgements


def _judgement(pair: Pair, ratings: dict[str, str]) -> Judgement:
    if pair.ours == pair.theirs:
        return Judgement(pair, 0.5)
    ours_first, theirs_first = (CHOICES.get(ratings.get(question.key(), "")) for question in pair.questions())
    if theirs_first is not None:
        return Judgement(pair, theirs_first, (None, theirs_first))
    preference = None if ours_first is None else 1 - ours_first
    return Judgement(pair, preference, (preference, None))
