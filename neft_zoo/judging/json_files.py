"""Reading the JSON files that others write: outputs, annotations, prompts, ratings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neft_zoo.errors import NoiseError, shown

OUTPUTS = "model_outputs.json"


@dataclass(frozen=True)
class Outputs:
    """What one model answered.

    Attributes:
        generator: name of the model.
        answers: output by instruction, in the file's order.
    """

    generator: str
    answers: Mapping[str, str]


def read_json(path: Path) -> Any:
    """Return a JSON file's content.

    Raises:
        NoiseError: if there is no such file or it is not whole.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NoiseError(f"{path} must be a file that can be read: {error.strerror}.") from None
    except ValueError as error:
        raise NoiseError(f"{path} must be JSON, but it is damaged or cut off: {error}.") from None


def read_records(path: Path, *texts: str) -> list[dict[str, Any]]:
    """Return the records of a JSON list, or of a JSON lines file, each with the given texts.

    Raises:
        NoiseError: if the file cannot be read, is empty, or a record lacks one of the texts.
    """
    found = _lines(path) if path.suffix == ".jsonl" else read_json(path)
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        raise NoiseError(f"{path} must be a list of records, got {shown(found)}.")
    if not found:
        raise NoiseError(f"{path} must hold at least one record, got none.")
    for i, record in enumerate(found):
        for name in texts:
            if not isinstance(record.get(name), str):
                raise NoiseError(f"record {i} of {path} must have a text {name!r}, got {shown(record.get(name))}.")
    return found


def read_outputs(path: Path) -> Outputs:
    """Read AlpacaEval's `model_outputs.json`, or the one in a folder.

    Raises:
        NoiseError: if it cannot be read, is empty, answers an instruction twice or has several generators.
    """
    path = path / OUTPUTS if path.is_dir() else path
    records = read_records(path, "instruction", "output")
    check_unique(path, [record["instruction"] for record in records])
    names = {str(record.get("generator") or path.stem) for record in records}
    if len(names) > 1:
        raise NoiseError(f"{path} must hold the outputs of one generator, got {', '.join(sorted(names))}.")
    return Outputs(names.pop(), {record["instruction"]: record["output"] for record in records})


def check_unique(path: Path, instructions: Iterable[str]) -> None:
    """Raise if an instruction is there twice: nobody could say which answer belongs to it."""
    twice = [text for text, count in Counter(instructions).items() if count > 1]
    if twice:
        raise NoiseError(f"{path} must hold every instruction once, got {shown(twice[0])} and {len(twice) - 1} others"
                         " several times.")  # fmt: skip


def excerpt(texts: Sequence[str]) -> str:
    """Return how many texts there are and what the first one is."""
    return f"{len(texts)}, such as {shown(texts[0])}"


def _lines(path: Path) -> list[Any]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise NoiseError(f"{path} must be a file that can be read: {error}.") from None
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found += [json.loads(line)] if line.strip() else []
        except ValueError:
            raise NoiseError(f"{path} must be JSON lines, but line {number} is damaged or cut off.") from None
    return found
