"""Prompts from an AlpacaEval file, from custom records, or from a recipe's test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from neft_zoo.config.data import alpaca_record, is_instruction
from neft_zoo.errors import NoiseError, shown
from neft_zoo.evaluation.records import Record, exchange, shaped_like
from neft_zoo.judging.json_files import JsonRecord, check_unique, read_records

FORMAT_KEYS = frozenset("instruction input prompt completion messages output generator".split())


@dataclass(frozen=True)
class Prompt:
    """A prompt.

    Attributes:
        instruction: its text, as shown to judges.
        record: the prompt in the format that the model was trained on.
        about: further keys of the file's record, copied to the outputs.
    """

    instruction: str
    record: Record
    about: Mapping[str, object]


def from_file(path: Path, example: Record) -> list[Prompt]:
    """Return the prompts in JSON or JSON lines: records with `instruction` (and `input`), `prompt` or `messages`.

    Args:
        path: the file.
        example: a training record in the desired format.

    Raises:
        NoiseError: if the file cannot be read, is empty, or has a duplicate prompt.
    """
    prompts = []
    for i, record in enumerate(read_records(path)):
        shaped = _shaped(record, example)
        if shaped is None:
            raise NoiseError(
                f"record {i} of {path} must have an instruction, a prompt or messages, got {shown(record)}."
            )
        about = {key: value for key, value in record.items() if key not in FORMAT_KEYS}
        prompts.append(Prompt(text_of(record, shaped), shaped, about))
    check_unique(path, [prompt.instruction for prompt in prompts])
    return prompts


def from_split(records: Sequence[Record], name: str) -> list[Prompt]:
    """Return the distinct prompts of a recipe's split.

    Raises:
        NoiseError: if no record has a prompt.
    """
    prompts: dict[str, Prompt] = {}
    for record in records:
        shaped = alpaca_record(dict(record)) if is_instruction(record) else record
        if exchange(shaped) is not None:
            prompt = Prompt(text_of(record, shaped), shaped, {"dataset": name})
            prompts.setdefault(prompt.instruction, prompt)
    if not prompts:
        raise NoiseError(f"the test split of {name!r} must have a record with a prompt, got none.")
    return list(prompts.values())


def _shaped(record: JsonRecord, example: Record) -> Record | None:
    """Return a record that can be tokenized as a prompt; an instruction gets the format of the training records."""
    if isinstance(record.get("instruction"), str):
        if is_instruction(example):  # Alpaca's template has a separate field for an input
            return alpaca_record({"input": "", **record, "output": ""})
        return shaped_like(example, _question(record))
    prompt, messages = record.get("prompt"), record.get("messages")
    if prompt and isinstance(prompt, str) or _are_turns(prompt):
        return {**record, "completion": ""}
    if not _are_turns(messages):
        return None
    if messages[-1]["role"] != "assistant":  # earlier answers are part of the prompt, a last one is the reference
        return {**record, "prompt": messages, "completion": ""}
    return record if _are_turns(messages[:-1]) else None


def _are_turns(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    """Return whether a value is a conversation of at least one turn."""
    turns = value if isinstance(value, list) else []
    return bool(turns) and all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in turns)


def text_of(record: Record, shaped: Record) -> str:
    """Return the prompt as one text: an instruction with its input, a question, or a conversation with its roles."""
    if isinstance(record.get("instruction"), str):
        return _question(record)
    prompt_and_reference = exchange(shaped)
    assert prompt_and_reference is not None
    turns, _ = prompt_and_reference
    if isinstance(turns, str):
        return turns
    if len(turns) == 1:
        return str(turns[0]["content"])
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def _question(record: Record) -> str:
    return "\n\n".join(filter(str.strip, (record["instruction"], record.get("input") or "")))
