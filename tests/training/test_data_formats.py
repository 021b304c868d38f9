"""Records in every format, and one sentence for those that fit none."""

import json
import re

import pytest
from datasets import Dataset, load_dataset

from neft_zoo import NoiseError
from neft_zoo.training.data_formats import ACCEPTED, as_prompts, check_records, with_texts

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
CALL = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]}
PART = {"type": "text", "text": "Hi "}
ALPACA = {"instruction": "Say.", "input": "", "output": "yes"}
FITTING = {
    "text": {"text": "Hi"},
    "prompt": {"prompt": "Hi", "completion": "Hello"},
    "turns": {"prompt": [USER], "completion": [ANSWER]},
    "messages": {"messages": [USER, ANSWER]},
    "tools": {"messages": [USER, CALL], "tools": "[]"},
    "parts": {"messages": [{**USER, "content": [PART, PART]}, {**ANSWER, "content": [PART]}]},
    "conversations": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    "alpaca": ALPACA,
    "alpaca without input": {**ALPACA, "input": None},
    "empty history": {**ALPACA, "history": []},
    "tokens": {"input_ids": [1, 2]},
    "other columns": {"text": "Hi", "id": 3, "source": None},
}


@pytest.mark.parametrize("record", FITTING.values(), ids=FITTING)
def test_a_record_in_a_format_is_accepted(record):
    check_records(Dataset.from_list([record] * 3), "data.jsonl")


UNFIT = {
    "question and answer": (
        {"question": "Hi", "answer": "Hello"},
        f"must have the columns {re.escape(ACCEPTED)}, got q",
    ),
    "pairs": (
        {"prompt": "Hi", "chosen": "a", "rejected": "b"},
        r"one answer a record, got pairs \(chosen, rejected\)",
    ),
    "prompt alone": ({"prompt": "Hi"}, "must have the columns"),
    "no text": ({"text": None}, "record 3: text must be text, got None"),
    "a number": ({"prompt": "Hi", "completion": 3}, "record 1: completion must be text, got 3"),
    "no output": ({**ALPACA, "output": None}, "record 3: output must be text, got None"),
    "a history": ({**ALPACA, "history": [["a", "b"]]}, r"record 3: history must be empty, .*, got \[\['a', 'b'\]\]"),
    "a system prompt": ({**ALPACA, "system": "Be kind."}, "record 3: system must be empty"),
    "no messages": ({"messages": []}, "record 3: messages must hold a message, got none"),
    "no list": ({"messages": "Hi"}, "record 3: messages must be a list of messages, got 'Hi'"),
    "no content": (
        {"messages": [USER, {**ANSWER, "content": None}]},
        "record 3: .* content of message 2, got None",
    ),
    "no role": ({"messages": [{"content": "Hi"}]}, "record 3: messages must hold messages with role and content"),
    "an image": ({"messages": [{**USER, "content": [{"type": "image"}]}]}, "record 3: .* the content of message 1"),
    "ours as theirs": ({"conversations": [USER]}, "record 3: conversations must hold messages with from and value"),
}


@pytest.mark.parametrize(("record", "message"), UNFIT.values(), ids=UNFIT)
@pytest.mark.parametrize("stream", [False, True])
def test_a_record_that_fits_none_is_named(record, message, stream, tmp_path):
    """In a file whose first records are right; Arrow makes every value of a column a number where one is."""
    rows = [{name: _right(name, value) for name, value in record.items()}] * 2 + [record]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load_dataset("json", data_files=str(path), split="train", streaming=stream)
    with pytest.raises(NoiseError, match=message) as caught:
        check_records(data, "rows.jsonl split train")
    assert str(caught.value).startswith("rows.jsonl split train") and "\n" not in str(caught.value)


def _right(name, value):
    """Return a value of the same type that fits the column."""
    if name in ("history", "system"):
        return None
    if name == "messages":
        return [USER, ANSWER]
    if name == "conversations":
        return [{"from": "human", "value": "Hi"}]
    return value if name != "completion" and value is not None else "3"


def test_parts_are_joined_and_a_call_of_tools_says_nothing():
    data = with_texts(Dataset.from_list([FITTING["tools"], {"messages": [USER, ANSWER], "tools": None}]))
    assert [turn["content"] for turn in data[0]["messages"]] == ["Hi", ""]
    assert data[0]["messages"][1]["tool_calls"][0]["function"]["name"] == "f"
    data = with_texts(Dataset.from_list([FITTING["parts"]]))
    assert [turn["content"] for turn in data[0]["messages"]] == ["Hi Hi ", "Hi "]
    plain = Dataset.from_list([FITTING["messages"]])
    assert with_texts(plain) is plain


def test_images_keep_their_parts():
    record = {"messages": [{**USER, "content": [{"type": "image"}, PART]}], "images": ["a.png"]}
    data = Dataset.from_list([record])
    check_records(data, "data")
    assert with_texts(data) is data


def test_instructions_become_prompts_and_completions():
    data = as_prompts(Dataset.from_list([ALPACA, {**ALPACA, "input": None}]))
    assert data.column_names == ["prompt", "completion"] and data["completion"][:] == ["yes", "yes"]
    assert data[0]["prompt"] == data[1]["prompt"]
