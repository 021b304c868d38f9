"""What a model is asked: an AlpacaEval file, records of one's own, or a recipe's test split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neft_zoo.config.data import alpaca_record, is_instruction
from neft_zoo.errors import NoiseError, shown
from neft_zoo.evaluation.records import Record, exchange
from neft_zoo.judging.json_files import check_unique, read_records


@dataclass(frozen=True)
class Prompt:
    """One thing to answer.

    Attributes:
        instruction: its text, as judges see it.
        record: the same in the form that the model was trained on.
        about: further keys of the file's record, kept in the outputs.
    """

    instruction: str
    record: Record
    about: Mapping[str, Any]


def from_file(path: Path, example: Record) -> list[Prompt]:
    """Read prompts from JSON or JSON lines: records with `instruction` (and `input`), `prompt` or `messages`.

    Args:
        path: the file.
        example: a training record, which says how the model is used to being asked.

    Raises:
        NoiseError: if the file cannot be read, is empty, or asks the same twice.
    """
    found = []
    for i, record in enumerate(read_records(path)):
        shaped = _shaped(record, example)
        if shaped is None:
            raise NoiseError(
                f"record {i} of {path} must have an instruction, a prompt or messages, got {shown(record)}."
            )
        dropped = {"instruction", "input", "prompt", "completion", "messages", "output", "generator"}
        found.append(Prompt(text_of(record, shaped), shaped, {k: v for k, v in record.items() if k not in dropped}))
    check_unique(path, [prompt.instruction for prompt in found])
    return found


def from_split(records: list[dict[str, Any]], name: str) -> list[Prompt]:
    """Return the prompts of a recipe's split, each once.

    Raises:
        NoiseError: if no record has a prompt.
    """
    found: dict[str, Prompt] = {}
    for record in records:
        shaped = alpaca_record(record) if is_instruction(record) else record
        if exchange(shaped) is not None:
            prompt = Prompt(text_of(record, shaped), shaped, {"dataset": name})
            found.setdefault(prompt.instruction, prompt)
    if not found:
        raise NoiseError(f"the test split of {name!r} must have a record with a prompt, got none.")
    return list(found.values())


def _shaped(record: Mapping[str, Any], example: Record) -> Record | None:
    """Return a record that can be tokenized as a prompt; an instruction takes the form of the training records."""
    if isinstance(record.get("instruction"), str):
        if is_instruction(example):
            return alpaca_record({"input": "", **record, "output": ""})
        asked, text = exchange(example), _question(record)
        prompt = text if asked is None or isinstance(asked[0], str) else [{"role": "user", "content": text}]
        return {"prompt": prompt, "completion": ""}
    if record.get("prompt"):
        return {"completion": "", **record}
    messages = record.get("messages")
    if not messages:
        return None
    return record if exchange(record) else {"prompt": messages, "completion": ""}


def text_of(record: Mapping[str, Any], shaped: Record) -> str:
    """Return the prompt as one text: an instruction with its input, a question, or a conversation with its roles."""
    if isinstance(record.get("instruction"), str):
        return _question(record)
    asked = exchange(shaped)
    assert asked is not None
    turns = asked[0]
    if isinstance(turns, str):
        return turns
    if len(turns) == 1:
        return str(turns[0]["content"])
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def _question(record: Mapping[str, Any]) -> str:
    return "\n\n".join(filter(str.strip, (record["instruction"], record.get("input") or "")))
