"""Reading other programs' JSON files: outputs, annotations, prompts and ratings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from neft_zoo.errors import NoiseError, one_line, shown

OUTPUTS = "model_outputs.json"
JsonRecord: TypeAlias = dict[str, Any]  # keys and values as written by another program


@dataclass(frozen=True)
class Outputs:
    """The answers of one model.

    Attributes:
        generator: name of the model.
        answers: answer by instruction, in the file's order.
    """

    generator: str
    answers: Mapping[str, str]


def read_json(path: Path) -> object:
    """Return the content of a JSON file.

    Raises:
        NoiseError: if the file is missing or incomplete.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NoiseError(f"{path} must be a file that can be read: {error.strerror}.") from None
    except ValueError as error:
        raise NoiseError(f"{path} must be JSON, but it is damaged or cut off: {one_line(error)}.") from None


def read_records(path: Path, *texts: str) -> list[JsonRecord]:
    """Return the records of a JSON list, or of a JSON lines file.

    Args:
        path: the file.
        texts: keys that must have a string value in every record.

    Raises:
        NoiseError: if the file cannot be read, is empty, or a record lacks one of the keys.
    """
    records: Any = _read_lines(path) if path.suffix == ".jsonl" else read_json(path)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise NoiseError(f"{path} must be a list of records, got {shown(records)}.")
    if not records:
        raise NoiseError(f"{path} must hold at least one record, got none.")
    for i, record in enumerate(records):
        for name in texts:
            if not isinstance(record.get(name), str):
                raise NoiseError(f"record {i} of {path} must have a text {name!r}, got {shown(record.get(name))}.")
    return records


def read_outputs(path: Path) -> Outputs:
    """Return the outputs in AlpacaEval's `model_outputs.json`, given the file or its folder.

    Raises:
        NoiseError: if it cannot be read, is empty, answers an instruction twice, or has several generators.
    """
    path = path / OUTPUTS if path.is_dir() else path
    records = read_records(path, "instruction", "output")
    check_unique(path, [record["instruction"] for record in records])
    names = {str(record.get("generator") or path.stem) for record in records}
    if len(names) > 1:
        raise NoiseError(f"{path} must hold the outputs of one generator, got {', '.join(sorted(names))}.")
    return Outputs(names.pop(), {record["instruction"]: record["output"] for record in records})


def check_unique(path: Path, instructions: Iterable[str]) -> None:
    """Raise if an instruction occurs twice in a file, which makes its answer ambiguous.

    Raises:
        NoiseError: if an instruction is repeated.
    """
    repeated = [text for text, count in Counter(instructions).items() if count > 1]
    if repeated:
        others = f"{shown(repeated[0])} and {len(repeated) - 1} others several times"
        raise NoiseError(f"{path} must hold every instruction once, got {others}.")


def excerpt(texts: Sequence[str]) -> str:
    """Return the number of texts and the first one, for a message."""
    return f"{len(texts)}, such as {shown(texts[0])}"


def _read_lines(path: Path) -> list[object]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise NoiseError(f"{path} must be a file that can be read: {one_line(error)}.") from None
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records += [json.loads(line)] if line.strip() else []
        except ValueError:
            raise NoiseError(f"{path} must be JSON lines, but line {number} is damaged or cut off.") from None
    return records
