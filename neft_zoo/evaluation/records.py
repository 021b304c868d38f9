"""What a record asks and what it expects, in every format that TRL trains on and that has a prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Record: TypeAlias = Mapping[str, Any]
Prompt: TypeAlias = "str | list[dict[str, Any]]"


def exchange(record: Record) -> tuple[Prompt, str] | None:
    """Return prompt and reference answer of a record; None if it has no prompt (plain text to go on with).

    Of a conversation, the last assistant's turn is the reference and everything before it the prompt.
    """
    if "prompt" in record and "completion" in record:
        completion = record["completion"]
        return record["prompt"], completion if isinstance(completion, str) else completion[-1]["content"]
    messages = record.get("messages") or []
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    return (messages[: turns[-1]], messages[turns[-1]]["content"]) if turns else None


def prompt_tokens(tokenizer: Any, record: Record, template: str | None = None) -> list[int]:
    """Return the prompt as training tokenized it: through the chat template, ready for the answer.

    Args:
        tokenizer: the model's.
        record: one that has a prompt.
        template: the trainer's chat template, where it is not the tokenizer's own.
    """
    found = exchange(record)
    assert found is not None
    if isinstance(found[0], str):
        return list(tokenizer(found[0])["input_ids"])
    settings = {"tools": record.get("tools"), **(record.get("chat_template_kwargs") or {})}
    rendered = tokenizer.apply_chat_template(
        found[0], add_generation_prompt=True, tokenize=True, return_dict=True, chat_template=template, **settings
    )
    return list(rendered["input_ids"])


def with_question(record: Record, change: Callable[[str], str]) -> dict[str, Any]:
    """Return the record with its question changed: the last user's turn, the instruction, or the prompt's text."""
    record = dict(record)
    for key in ("instruction", "prompt", "messages"):
        if isinstance(record.get(key), str):
            return {**record, key: change(record[key])}
        turns = [i for i, turn in enumerate(record.get(key) or []) if turn["role"] == "user"]
        if turns:
            messages = [dict(turn) for turn in record[key]]
            messages[turns[-1]]["content"] = change(messages[turns[-1]]["content"])
            return {**record, key: messages}
    return record
