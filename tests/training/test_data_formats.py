"""Records in every format, and one sentence for those that fit none."""

import json
import re

import pytest
from datasets import Dataset, Image, IterableDataset, List, load_dataset

from neft_zoo import NoiseError, SFTTrainer
from neft_zoo.errors import DataWarning
from neft_zoo.training.data_conversion import as_messages, as_messages_record, as_prompts
from neft_zoo.training.data_formats import ACCEPTED, UNPAIRED, check_records

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
    "conversations of roles": {"conversations": [USER, ANSWER]},
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
    "no role or from": (
        {"conversations": [{"value": "Hi"}]},
        "record 3: conversations must hold messages with from and value, or role and content",
    ),
    "no prompt": ({"prompt": None, "completion": "Hi"}, "record 3: prompt must be text, got None"),
    "a system prompt beside messages": (
        {"messages": [USER, ANSWER], "system_prompt": "Be kind."},
        "system_prompt must",
    ),
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


JUDGED = {"prompt": "Hi", "completion": "Hello", "label": True}
TOKENS = {"prompt_ids": [1, 2], "completion_ids": [3], "label": True}


@pytest.mark.parametrize("record", [JUDGED, {**JUDGED, "label": 0}, TOKENS])
def test_a_label_is_true_or_false(record):
    check_records(Dataset.from_list([record]), "data", formats=UNPAIRED)


@pytest.mark.parametrize("label", [None, "true", "good", "", 2, -1, 0.5, 1.0, [True]])
@pytest.mark.parametrize("record", [JUDGED, TOKENS])
def test_another_label_is_named(record, label):
    """TRL takes a text for an error of its own and -1 for desirable."""
    data = Dataset.from_list([{**record, "label": label}])
    with pytest.raises(NoiseError, match=re.escape(f"data, record 1: label must be true or false, got {label!r}.")):
        check_records(data, "data", formats=UNPAIRED)


TOKENIZED = {
    "none": (
        [{"input_ids": [1]}, {"input_ids": None}],
        "record 2: input_ids must be a list of whole numbers, got None",
    ),
    "only none": ([{"input_ids": None}], "record 1: input_ids must be a list of whole numbers, got None"),
    "texts": ([{"input_ids": ["a"]}], r"record 1: input_ids must be a list of whole numbers, got \['a'\]"),
    "a text": ([{"input_ids": "a b"}], "record 1: input_ids must be a list of whole numbers, got 'a b'"),
    "a hole": ([{"input_ids": [1, None]}], r"record 1: input_ids must be a list of whole numbers, got \[1, None\]"),
    "fractions": ([{"input_ids": [1.5]}], r"record 1: input_ids must be a list of whole numbers, got \[1.5\]"),
    "labels": ([{"input_ids": [1], "labels": ["a"]}], "record 1: labels must be a list of whole numbers"),
    "answers": ([{"prompt_ids": [1], "completion_ids": [None]}], "record 1: completion_ids must be a list of whole"),
    "short labels": (
        [{"input_ids": [1, 2], "labels": [1, 2]}, {"input_ids": [1, 2], "labels": [1]}],
        "record 2: labels must be as long as input_ids, got 1 for 2 tokens",
    ),
    "long mask": ([{"input_ids": [1], "completion_mask": [0, 1]}], "completion_mask must be as long as input_ids"),
}


@pytest.mark.parametrize(("records", "message"), TOKENIZED.values(), ids=TOKENIZED)
@pytest.mark.parametrize("stream", [False, True])
def test_tokens_that_a_collator_would_fail_at_are_named(records, message, stream):
    data = Dataset.from_list(records)
    with pytest.raises(NoiseError, match=f"data, .*{message}"):
        check_records(data.to_iterable_dataset() if stream else data, "data")


@pytest.mark.parametrize("record", [{"input_ids": [1], "labels": [-100]}, {"input_ids": []}, TOKENS])
@pytest.mark.parametrize("stream", [False, True])
def test_tokens_that_are_lists_of_whole_numbers_are_accepted(record, stream):
    data = Dataset.from_list([record] * 3).select([2, 0])
    check_records(data.to_iterable_dataset() if stream else data, "data")


def _right(name, value):
    """Return a value of the same type that fits the column."""
    if name in ("history", "system", "system_prompt"):
        return None
    if name == "messages":
        return [USER, ANSWER]
    if name == "conversations":
        return [{"from": "human", "value": "Hi"}]
    if name == "prompt" and value is None:
        return "Hi"
    return value if name != "completion" and value is not None else "3"


def test_parts_are_joined_and_a_call_of_tools_says_nothing():
    data = as_messages(Dataset.from_list([FITTING["tools"], {"messages": [USER, ANSWER], "tools": None}]))
    assert [turn["content"] for turn in data[0]["messages"]] == ["Hi", ""]
    assert data[0]["messages"][1]["tool_calls"][0]["function"]["name"] == "f"
    data = as_messages(Dataset.from_list([FITTING["parts"]]))
    assert [turn["content"] for turn in data[0]["messages"]] == ["Hi Hi ", "Hi "]
    plain = Dataset.from_list([FITTING["messages"]])
    assert as_messages(plain) is plain


def test_images_keep_their_parts():
    record = {"messages": [{**USER, "content": [{"type": "image"}, PART]}], "images": ["a.png"]}
    data = Dataset.from_list([record])
    check_records(data, "data")
    assert as_messages(data) is data


def test_images_are_not_decoded_to_look_at_texts():
    records = Dataset.from_dict({"messages": [[USER, ANSWER]], "images": [[{"bytes": b"no image", "path": None}]]})
    assert as_messages(records.cast_column("images", List(Image()))).num_rows == 1


@pytest.mark.parametrize("form", [None, "torch", "numpy", "pandas", "arrow"])
def test_records_are_read_whatever_they_are_turned_into(form):
    found = Dataset.from_list([{"messages": [USER, ANSWER]}] * 3).with_format(form)
    check_records(found, "data.jsonl")
    assert as_messages(found).num_rows == 3
    with pytest.raises(NoiseError, match="record 2: text must be text, got None"):
        check_records(Dataset.from_dict({"text": ["Hi", None]}).with_format(form), "data.jsonl")


@pytest.mark.parametrize("form", ["torch", "numpy", "pandas", "arrow"])
def test_records_train_alike_whatever_they_are_turned_into(form, llama, config, records, tokenizer):
    def losses(data):
        trainer = SFTTrainer(llama(), config(), train_dataset=data, processing_class=tokenizer, noise="neft_uniform")
        return trainer.train().training_loss

    assert losses(records.with_format(form)) == losses(records)


def test_records_that_a_function_makes_are_read_as_it_makes_them():
    made = Dataset.from_dict({"text": ["", ""]}).with_transform(lambda batch: {"text": [None] * len(batch["text"])})
    with pytest.raises(NoiseError, match="record 1: text must be text, got None"):
        check_records(made, "data.jsonl")


def test_instructions_become_prompts_and_completions():
    data = as_prompts(Dataset.from_list([ALPACA, {**ALPACA, "input": None}]))
    assert data.column_names == ["prompt", "completion"] and data["completion"][:] == ["yes", "yes"]
    assert data[0]["prompt"] == data[1]["prompt"]


@pytest.mark.parametrize("turns", [FITTING["conversations"], FITTING["conversations of roles"]])
def test_conversations_become_messages_with_everybodys_roles(turns):
    data = as_messages(Dataset.from_list([turns]))
    assert data.column_names == ["messages"]
    assert [(turn["role"], turn["content"]) for turn in data[0]["messages"]] == [
        ("user", "Hi"),
        ("assistant", "Hello"),
    ]


def test_conversations_of_both_kinds_in_one_file():
    data = Dataset.from_list([FITTING["conversations"], FITTING["conversations of roles"]])
    check_records(data, "data")
    assert [turn["content"] for record in as_messages(data) for turn in record["messages"]] == ["Hi", "Hello"] * 2


@pytest.mark.parametrize("used", ["text", "prompt", "messages", "alpaca"])
def test_columns_with_text_that_are_not_used_are_named_once(used):
    others = {"id": 3, "source": "web", "category": None, "tags": ["a"], "empty": ""}
    data = Dataset.from_list([{**FITTING[used], **others}] * 3)
    with pytest.warns(UserWarning, match=r"data is read from .*; not used: source, tags\.$") as caught:
        check_records(data, "data", note=True)
    assert len(caught) == 1


BOTH = {
    "prompt of messages": ({"prompt": "Hi", **FITTING["messages"]}, ["messages"]),
    "text of instructions": ({"text": "Hi", **ALPACA}, ["prompt", "completion"]),
    "messages of a prompt": ({**FITTING["messages"], **FITTING["prompt"]}, ["prompt", "completion"]),
    "instructions of conversations": ({**ALPACA, **FITTING["conversations"]}, ["messages"]),
}


@pytest.mark.parametrize(("record", "columns"), BOTH.values(), ids=BOTH)
def test_of_two_formats_one_is_read(record, columns):
    """TRL would take the prompt of a conversation for the prompt of a completion, and look for that."""
    data = Dataset.from_list([record])
    with pytest.warns(UserWarning, match="not used"):
        check_records(data, "data", note=True)
    assert [name for name in as_prompts(as_messages(data)).column_names if name != "text"] == columns


def test_a_stream_that_can_be_read_once_is_left_to_the_steps(llama, config, tokenizer):
    rows = iter([{"text": f"Record {number} of a pipe."} for number in range(400)])
    stream = IterableDataset.from_generator(lambda: rows)
    with pytest.warns(DataWarning, match="^train_dataset begins with another record each time it is read"):
        SFTTrainer(llama(), args=config(max_steps=1), train_dataset=stream, processing_class=tokenizer, noise="none")
    assert len(list(rows)) > 380


@pytest.mark.parametrize("record", FITTING.values(), ids=FITTING)
def test_a_record_alone_is_converted_as_in_a_data_set(record):
    record = {**record, "instruction": "beside", "id": 7}
    assert Dataset.from_list([as_messages_record(record)])[0] == as_messages(Dataset.from_list([record]))[0]
