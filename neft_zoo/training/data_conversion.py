"""Conversion of records in any accepted format to TRL's formats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from neft_zoo.training.data_formats import ALPACA, IMAGES, SFT, TEXT, Record, Records, column_names, read

MESSAGES = ("prompt", "completion", "messages")
# ShareGPT's roles, which a chat template would insert unchanged.
ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant", "bing": "assistant"}


def as_messages(data: Records) -> Records:
    """Return records with the columns of one format, conversations as messages, and a text in every message.

    Text parts are joined, and a message with only tool calls gets an empty text.
    """
    names = column_names(data)
    if _are_conversations(names):
        data = data.map(_chatml, remove_columns=["conversations"])
        names = column_names(data)
    drop = _of_other_formats(names)
    data = data.remove_columns(drop) if drop else data
    names = column_names(data)
    columns = [] if set(IMAGES) & set(names) else [name for name in MESSAGES if name in names]
    if columns and any(_needs_text(record, columns) for record in read(data.select_columns(columns))):
        return data.map(with_text, fn_kwargs={"columns": columns})
    return data


def as_messages_record(record: Record) -> Record:
    """Return a single record as `as_messages` returns those of a data set."""
    if _are_conversations(record):
        record = {**_chatml(record), **{name: value for name, value in record.items() if name != "conversations"}}
    drop = _of_other_formats(record)
    record = {name: value for name, value in record.items() if name not in drop}
    return record if set(IMAGES) & set(record) else with_text(record)


def _are_conversations(names: Iterable[str]) -> bool:
    return "conversations" in names and not {"prompt", "messages"} & set(names)


def _of_other_formats(names: Iterable[str]) -> list[str]:
    """Return the columns of other formats than that of the records: TRL would read a `prompt`, for example."""
    names = set(names)
    complete = [each for each in SFT if {*each} - {"input"} <= names]
    others = {name for each in SFT for name in each} - {*complete[0]} - {*TEXT} if complete else set()
    return sorted(others & names)


def _chatml(record: Record) -> dict[str, object]:
    turns: Any = record["conversations"]
    messages = []
    for turn in turns:
        rest = {key: value for key, value in turn.items() if key not in ("from", "value", "role", "content")}
        role, content = turn.get("from") or turn.get("role"), turn.get("value", turn.get("content"))
        content = turn.get("content") if content is None else content
        messages.append({"role": ROLES.get(role, role), "content": content, **rest})
    return {"messages": messages}


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


def as_prompts(data: Records) -> Records:
    """Return instructions as prompts and completions, and all other data unchanged."""
    columns = column_names(data)
    return data.map(alpaca_record, remove_columns=columns) if is_instruction(columns) else data


def alpaca_record(record: Record) -> dict[str, str]:
    """Return a record of `instruction`, `input` and `output` as prompt and completion, in Alpaca's template."""
    has_input = bool(str(record.get("input") or "").strip())
    task = "an instruction and an input that gives it context" if has_input else "an instruction"
    blocks = [f"Below is {task}. Write a response that completes the request."]
    blocks += [f"### Instruction:\n{record['instruction']}"]
    blocks += [f"### Input:\n{record['input']}"] if has_input else []
    return {"prompt": "\n\n".join([*blocks, "### Response:\n"]), "completion": str(record["output"])}


def is_instruction(columns: Iterable[str]) -> bool:
    """Return whether records with these columns are instructions, the only format that TRL cannot read itself."""
    columns = set(columns)
    return {*ALPACA} - {"input"} <= columns and not {"prompt", "messages", "conversations"} & columns
