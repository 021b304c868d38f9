"""Formats of records, TRL's for fine-tuning and Alpaca's: which one data is in, and what does not fit it."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sized
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

from neft_zoo.errors import NoiseError, shown

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset
    from trl.trainer.sft_trainer import SFTTrainer

Record: TypeAlias = Mapping[str, object]
Records: TypeAlias = "Dataset | IterableDataset"
ACCEPTED = "text, or messages, or prompt and completion, or instruction and output, or conversations (from, value)"
# Columns that hold what a model is to read, and that no format above has: dropping them would change the task.
DROPPED = ("history", "system")
IMAGES = ("image", "images")
MESSAGES = ("prompt", "completion", "messages")
PEEKED = 100  # records of a stream that are looked at before training


def check_records(data: Records, source: str, text_field: str = "text") -> None:
    """Raise unless every record is in the format that the columns say; of a stream the first hundred are read.

    Raises:
        NoiseError: with source, number of the record from 1, column, what is there and what is accepted.
    """
    columns = column_names(data)
    texts = text_columns(columns, text_field, source)
    looked_at = [name for name in (*texts, *DROPPED) if name in columns]
    if not texts:
        return
    records = data.select_columns(looked_at)
    images = bool(set(IMAGES) & set(columns))
    for number, record in enumerate(_read(records), 1):
        for name in looked_at:
            value = record.get(name)
            problem = _dropped(value) if name in DROPPED else _problem(name, value, images)
            if problem:
                raise NoiseError(f"{source}, record {number}: {name} {problem}.")


def column_names(data: Records) -> list[str]:
    """Return the columns of a split; those of a stream or a list are its first record's."""
    names = getattr(data, "column_names", None)
    return list(names or next(_read(data), {}))


def _read(data: Records) -> Iterator[Record]:
    """Return the records, of a stream the first ones."""
    records: Iterable[Any] = data
    return islice(records, None if hasattr(data, "select") else PEEKED)


def text_columns(columns: Collection[str], text_field: str, source: str) -> tuple[str, ...]:
    """Return the columns that TRL reads, none of records that are tokenized already.

    Raises:
        NoiseError: if the columns are those of no format.
    """
    if "input_ids" in columns:
        return ()
    if {"chosen", "rejected"} <= set(columns) and "completion" not in columns:
        raise NoiseError(
            f"{source} must hold one answer a record, got pairs (chosen, rejected): DPOTrainer takes them."
        )
    for names in (("prompt", "completion"), ("messages",), ("conversations",), (text_field,)):
        if set(names) <= set(columns):
            return names
    if is_instruction(columns):
        return ("instruction", "input", "output")
    accepted = ACCEPTED.replace("text", text_field, 1)
    raise NoiseError(f"{source} must have the columns {accepted}, got {', '.join(columns)}.")


def _dropped(value: object) -> str:
    return "" if value in (None, "", [], {}) else f"must be empty, since no format has it, got {shown(value)}"


def _problem(name: str, value: object, images: bool) -> str:
    """Return what is wrong with the value of a column, empty if nothing is."""
    if isinstance(value, str) or (name == "input" and value is None):
        return "" if name not in ("messages", "conversations") else f"must be a list of messages, got {shown(value)}"
    if not isinstance(value, list) or name in ("instruction", "input", "output"):
        kind = "a list of messages" if name in ("messages", "conversations") else "text"
        return f"must be {kind}, got {shown(value)}"
    if not value and name != "completion":
        return "must hold a message, got none"
    role, content = ("from", "value") if name == "conversations" else ("role", "content")
    for at, message in enumerate(value, 1):
        if not isinstance(message, dict) or not isinstance(message.get(role), str):
            return f"must hold messages with {role} and {content}, got {shown(message)}"
        text = message.get(content)
        parts = text if isinstance(text, list) else []
        if isinstance(text, str) or (text is None and message.get("tool_calls")):
            continue
        if parts and (images or all(map(_is_text, parts))):
            continue
        return f"must have text for the {content} of message {at}, got {shown(text)}"
    return ""


def _is_text(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _needs_text(record: Record, columns: Iterable[str]) -> bool:
    return any(not isinstance(message.get("content"), str) for message in _messages(record, columns))


def with_text(record: Record, columns: Iterable[str] = MESSAGES) -> dict[str, object]:
    """Return a record in which every message has a text."""
    changed = dict(record)
    for name in columns:
        if isinstance(record.get(name), list):
            changed[name] = [{**message, "content": _joined(message)} for message in _messages(record, [name])]
    return changed


def _joined(message: Mapping[str, object]) -> str:
    content = message.get("content")
    return "".join(part["text"] for part in content) if isinstance(content, list) else str(content or "")


def _messages(record: Record, columns: Iterable[str]) -> list[Mapping[str, object]]:
    values = [record.get(name) for name in columns]
    return [message for value in values if isinstance(value, list) for message in value]


def with_texts(data: Records) -> Records:
    """Return records whose messages have texts: parts of text are joined, and a call of tools alone says nothing."""
    names = column_names(data)
    columns = [] if set(IMAGES) & set(names) else [name for name in MESSAGES if name in names]
    if any(_needs_text(record, columns) for record in _read(data)):
        return data.map(with_text, fn_kwargs={"columns": columns})
    return data


def as_prompts(data: Records) -> Records:
    """Return instructions as prompts and completions, and all other data as it is."""
    columns = column_names(data)
    return data.map(alpaca_record, remove_columns=columns) if is_instruction(columns) else data


def check_kept(given: Records, trainer: SFTTrainer) -> None:
    """Warn of records that lost every graded token to `max_length`, which TRL drops without a word.

    Args:
        given: the training records.
        trainer: the trainer that prepared them.

    Raises:
        NoiseError: if none is left.
    """
    kept: Any = trainer.train_dataset
    args: Any = trainer.args  # typed as of every trainer
    if args.packing or not (isinstance(given, Sized) and isinstance(kept, Sized)):
        return
    before, after, length = len(given), len(kept), args.max_length
    if not after:
        raise NoiseError(f"max_length must leave a graded token in a record, got {length}: all {before} lose theirs.")
    if after < before:
        warnings.warn(
            f"{before - after} of {before} records have no graded token within max_length {length}: they are dropped.",
            stacklevel=2,
        )


def alpaca_record(record: Record) -> dict[str, str]:
    """Return a record of `instruction`, `input` and `output` as prompt and completion, in Alpaca's template."""
    has_input = bool(str(record.get("input") or "").strip())
    task = "an instruction and an input that gives it context" if has_input else "an instruction"
    blocks = [f"Below is {task}. Write a response that completes the request."]
    blocks += [f"### Instruction:\n{record['instruction']}"]
    blocks += [f"### Input:\n{record['input']}"] if has_input else []
    return {"prompt": "\n\n".join([*blocks, "### Response:\n"]), "completion": str(record["output"])}


def is_instruction(columns: Iterable[str]) -> bool:
    """Return whether records with these columns are instructions; TRL knows every other format by itself."""
    return {"instruction", "output"} <= set(columns) and not {"prompt", "messages"} & set(columns)
