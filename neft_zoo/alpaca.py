"""Records of `instruction`, `input` and `output`, which TRL does not know."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def alpaca_record(record: dict[str, Any]) -> dict[str, str]:
    """Return a record of `instruction`, `input` and `output` as prompt and completion, in Alpaca's template."""
    has_input = bool((record.get("input") or "").strip())
    task = "an instruction and an input that gives it context" if has_input else "an instruction"
    blocks = [f"Below is {task}. Write a response that completes the request."]
    blocks += [f"### Instruction:\n{record['instruction']}"]
    blocks += [f"### Input:\n{record['input']}"] if has_input else []
    return {"prompt": "\n\n".join([*blocks, "### Response:\n"]), "completion": record["output"]}


def is_instruction(columns: Iterable[str]) -> bool:
    """Return whether records with these columns are instructions; TRL knows every other format by itself."""
    return {"instruction", "output"} <= set(columns) and not {"prompt", "messages"} & set(columns)
