"""Prompts and reference answers of records, in all of TRL's formats that have a prompt."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from neft_zoo.config.data import alpaca_record, is_instruction

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A row of a dataset: its columns depend on the format, so libraries give them no closer type.
Record: TypeAlias = Mapping[str, Any]
ALPACA_END = alpaca_record({"instruction": "", "output": ""})["prompt"][-len("### Response:\n") :]
Prompt: TypeAlias = "str | list[dict[str, str]]"


def exchange(record: Record) -> tuple[Prompt, str] | None:
    """Return prompt and reference answer of a record, or None if it has no prompt, as plain text or a greeting.

    In a conversation, the last assistant turn is the reference and everything before it is the prompt.
    """
    messages = record.get("messages") or []
    if "prompt" in record and "completion" in record:
        if isinstance(record["completion"], str):
            return record["prompt"], record["completion"]
        messages = [*record["prompt"], *record["completion"]]
    at = _reference_at(messages)
    # A turn that only calls tools may have no text.
    return None if not at else (messages[:at], messages[at].get("content") or "")


def _reference_at(messages: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the index of the last assistant turn, or None if there is none."""
    return max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=None)


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, record: Record, template: str | None = None) -> list[int]:
    """Return the prompt's token ids as in training: through the chat template, up to the start of the answer.

    Args:
        tokenizer: the model's.
        record: must have a prompt.
        template: the trainer's chat template, if it differs from the tokenizer's.
    """
    prompt_and_reference = exchange(record)
    assert prompt_and_reference is not None
    prompt, _ = prompt_and_reference
    if isinstance(prompt, str):
        return text_tokens(tokenizer, prompt)
    tools = record.get("tools")
    tools = json.loads(tools) if isinstance(tools, str) else tools  # as TRL reads them
    settings = {"tools": tools, **(record.get("chat_template_kwargs") or {})}
    rendered: Any = tokenizer.apply_chat_template(
        prompt, add_generation_prompt=True, tokenize=True, return_dict=True, chat_template=template, **settings
    )
    return list(rendered["input_ids"])


def text_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the token ids of a text, without the end token that a tokenizer may append (LLaMA's `add_eos_token`)."""
    ids: list[int] = list(tokenizer(text)["input_ids"])  # type: ignore[arg-type]
    appended = ids[-1:] == [tokenizer.eos_token_id] and not text.endswith(str(tokenizer.eos_token))
    return ids[:-1] if appended else ids


def shaped_like(example: Record, question: str, answer: str = "") -> Record:
    """Return a question and its answer in the format of another record.

    Args:
        example: a training record in the desired format: Alpaca's template, a conversation or text.
        question: as plain text.
        answer: its reference.
    """
    prompt_and_reference = exchange(example)
    prompt = None if prompt_and_reference is None else prompt_and_reference[0]
    instruction = {"instruction": question, "input": "", "output": answer}
    if is_instruction(example) or isinstance(prompt, str) and prompt.endswith(ALPACA_END):
        return alpaca_record(instruction)
    if prompt is None or isinstance(prompt, str):
        return {"prompt": question, "completion": answer}
    turns = {"prompt": ("user", question), "completion": ("assistant", answer)}
    return {key: [{"role": role, "content": text}] for key, (role, text) in turns.items()}


def with_question(record: Record, change: Callable[[str], str]) -> Record:
    """Return the record with its question changed: the last user turn, the instruction, or the prompt's text.

    A user turn after the reference is not part of the prompt.
    """
    record = dict(record)
    for key in ("instruction", "prompt", "messages"):
        if isinstance(record.get(key), str):
            return {**record, key: change(record[key])}
        messages = [dict(turn) for turn in record.get(key) or []]
        end = _reference_at(messages) if key == "messages" else None
        turns = [i for i, turn in enumerate(messages[:end]) if turn["role"] == "user"]
        if turns:
            messages[turns[-1]]["content"] = change(messages[turns[-1]]["content"])
            return {**record, key: messages}
    return record
