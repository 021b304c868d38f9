"""The formats of records, those of each TRL trainer and Alpaca's: finding a data set's format and checking it.

A trainer reads the columns of one format. The other columns of a record are treated as follows:

* columns that the model would have to read, but that no format includes (`history`, `system`): refused unless empty;
* columns of another format than the first one that fits (`text` beside `messages`): dropped, with a note;
* other columns with text (`id`, `source`, `category`): kept, and named in the same note.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

from neft_zoo.console import printable
from neft_zoo.errors import DataWarning, NoiseError, shown
from neft_zoo.training.tokenized_data import TOKENIZED, check_tokens

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

Record: TypeAlias = Mapping[str, object]
Records: TypeAlias = "Dataset | IterableDataset"
Format: TypeAlias = tuple[str, ...]

TEXT: Format = ("text",)
ALPACA: Format = ("instruction", "input", "output")
PAIRS: Format = ("chosen", "rejected")
LABEL = "label"
LABELLED: Format = ("prompt", "completion", LABEL)
# If several fit, TRL uses the first.
SFT: tuple[Format, ...] = (("prompt", "completion"), ("messages",), ("conversations",), ALPACA, TEXT)
PREFERENCE: tuple[Format, ...] = (PAIRS,)
UNPAIRED: tuple[Format, ...] = (LABELLED, PAIRS)
PROMPTS: tuple[Format, ...] = (("prompt",),)
ACCEPTED = "text, or messages, or prompt and completion, or instruction and output, or conversations (from, value)"
NOT_EMPTY = ("history", "system", "system_prompt")
IMAGES = ("image", "images")
# Columns that TRL reads in addition to those of a format.
BESIDE = (*IMAGES, "tools", "chat_template_kwargs", "completion_mask", "assistant_masks", "seq_lengths")
TURNS = ("messages", "conversations")
PEEKED = 100  # records of a stream that are checked before training


def check_records(
    data: Records, source: str, text_field: str = "text", formats: tuple[Format, ...] = SFT, note: bool = False
) -> None:
    """Raise unless every record is in the format given by the columns; of a stream, only the first hundred are read.

    Args:
        data: the records.
        source: their name in messages.
        text_field: name of the column with plain text.
        formats: the formats of the trainer.
        note: whether to warn, once, about unused columns with text.

    Raises:
        NoiseError: with source, number of the record (from 1), column, its value and what is accepted.
    """
    if not hasattr(data, "select") and not begins_anew(data, source):
        return
    columns = column_names(data)
    texts = text_columns(columns, text_field, source, formats)
    if formats is UNPAIRED and LABEL in columns and "chosen" not in columns:
        texts = (*texts, LABEL)
    if set(TOKENIZED) & set(columns):
        check_tokens(data, source)
    if not texts:
        return
    unused = _unused(columns, texts) if formats is SFT else []
    refused = [name for name in unused if name in NOT_EMPTY]
    looked_at = [*texts, *unused]
    images = bool(set(IMAGES) & set(columns))
    dropped = dict[str, None]()
    for number, record in enumerate(read(data.select_columns(looked_at)), 1):
        for name in texts:
            problem = _problem(name, record.get(name), images)
            if problem:
                raise NoiseError(f"{source}, record {number}: {name} {problem}.")
        for name in refused:
            if not _is_empty(record.get(name)):
                value = shown(record.get(name))
                raise NoiseError(
                    f"{source}, record {number}: {name} must be empty, since no format has it, got {value}: make it "
                    "a message of messages."
                )
        dropped |= {name: None for name in unused if number <= PEEKED and _is_text(record.get(name))}
    if dropped and note:
        names = printable(", ".join(dropped))
        read_from = " and ".join(texts)
        warnings.warn(f"{source} is read from {read_from}; not used: {names}.", DataWarning, stacklevel=3)


def begins_anew(stream: Records, source: str) -> bool:
    """Return whether a stream has the same first record twice, so that a look loses nothing; warn if not.

    Args:
        stream: the records.
        source: their name in the warning.
    """
    if _first(stream)[1]:
        return True
    warnings.warn(
        f"{source} begins with another record each time it is read, so its records are not checked before training; a "
        "source that can be read only once loses the few that are looked at.",
        DataWarning,
        stacklevel=3,
    )
    return False


def _first(stream: Records) -> tuple[Record, bool]:
    """Return the first record of a stream, and whether a second look sees the same one."""
    records: Iterable[Any] = stream
    first, again = (next(iter(records), {}) for _ in range(2))
    return first, str(first) == str(again)  # tensors have no truth value to compare with


def column_names(data: Records) -> list[str]:
    """Return the columns of a split; for a stream or a list, those of its first record."""
    names = getattr(data, "column_names", None)
    return list(names or next(read(data), {}))


def read(data: Records) -> Iterator[Record]:
    """Return the records; of a stream, the first ones, or one if a look loses what it sees."""
    records: Any = data
    if hasattr(data, "select"):
        return _rows(records)
    first, same = _first(data)
    return islice(records, PEEKED) if same else iter([first])


def plain(data: Any) -> Any:
    """Return data whose records are dicts of Python's own types, which TRL needs, not arrays or data frames."""
    return data if not hasattr(data, "select") or data.format["type"] in (None, "custom") else data.with_format(None)


def _rows(data: Dataset) -> Iterator[Record]:
    """Return the records, read a thousand at a time: datasets takes ten times as long to read them one by one."""
    for batch in plain(data).iter(1000):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


def text_columns(
    columns: Collection[str], text_field: str, source: str, formats: tuple[Format, ...] = SFT
) -> tuple[str, ...]:
    """Return the columns that TRL reads; none if the records are already tokenized.

    Raises:
        NoiseError: if the columns match no format.
    """
    if set(TOKENIZED) & set(columns):
        return ()
    if formats is SFT and {*PAIRS} <= set(columns) and "completion" not in columns:
        raise NoiseError(
            f"{source} must hold one answer a record, got pairs (chosen, rejected): DPOTrainer takes them."
        )
    for names in (tuple(text_field if name == "text" else name for name in each) for each in formats):
        if {*names} - {"input"} <= set(columns):
            also = ("prompt",) if names == PAIRS else ()
            return tuple(name for name in (*also, *names) if name in columns and name != LABEL)
    accepted = ACCEPTED if formats is SFT else ", or ".join(" and ".join(names) for names in formats)
    accepted = accepted.replace("text", text_field, 1)
    raise NoiseError(f"{source} must have the columns {accepted}, got {', '.join(columns)}.")


def _unused(columns: Iterable[str], texts: Collection[str]) -> list[str]:
    return [name for name in columns if name not in (*texts, *BESIDE)]


def _is_empty(value: object) -> bool:
    return value in (None, "", [], {})


def _is_text(value: object) -> bool:
    return not _is_empty(value) and isinstance(value, str | list)


def _problem(name: str, value: object, images: bool) -> str:
    """Return what is wrong with the value of a column, or an empty string."""
    if name == LABEL:  # TRL reads any value except 0 as desirable, even -1
        return "" if isinstance(value, int) and value in (0, 1) else f"must be true or false, got {shown(value)}"
    if isinstance(value, str) or (name == "input" and value is None):
        return "" if name not in TURNS else f"must be a list of messages, got {shown(value)}"
    if not isinstance(value, list) or name in ALPACA:
        kind = "a list of messages" if name in TURNS else "text"
        return f"must be {kind}, got {shown(value)}"
    if not value and name != "completion":
        return "must hold a message, got none"
    for at, message in enumerate(value, 1):
        # ShareGPT's keys, or both kinds, since datasets adds the keys of all records to each one.
        theirs = name == "conversations" and isinstance(message, dict) and message.get("from") is not None
        role, content = ("from", "value") if theirs else ("role", "content")
        if not isinstance(message, dict) or not isinstance(message.get(role), str):
            keys = "from and value, or role and content" if name == "conversations" else "role and content"
            return f"must hold messages with {keys}, got {shown(message)}"
        text = message.get(content)
        parts = text if isinstance(text, list) else []
        if isinstance(text, str) or (text is None and message.get("tool_calls")):
            continue
        if parts and (images or all(map(_is_part, parts))):
            continue
        return f"must have text for the {content} of message {at}, got {shown(text)}"
    return ""


def _is_part(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
