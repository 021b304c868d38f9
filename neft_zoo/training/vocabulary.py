"""Token ids without an embedding row, for example after adding tokens to the tokenizer but not to the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor, nn

from neft_zoo.errors import NoiseError
from neft_zoo.noise.batch import IGNORED
from neft_zoo.passes.anatomy import base_model, find_table
from neft_zoo.passes.special_tokens import special_token_ids
from neft_zoo.training.data_formats import PEEKED, begins_anew
from neft_zoo.training.tokenized_data import ANSWERS, BATCH, TOKENIZED

COLUMNS = (*TOKENIZED, *ANSWERS)


class Vocabulary:
    """The rows of a model's token embedding, and the tokens of a tokenizer.

    Args:
        model: a transformers or PEFT model.
        tokenizer: tokenizer or processor of the data, or None if unknown.
    """

    def __init__(self, model: nn.Module, tokenizer: Any = None) -> None:
        base = base_model(model)
        self.name, self.tokenizer = type(base).__name__, getattr(tokenizer, "tokenizer", tokenizer)
        self.rows = _rows(model)
        # Models with images may replace placeholders before the lookup (PaliGemma), and name them in the config.
        self.placeholders: list[int] = special_token_ids(None, getattr(base, "config", None))["media_ids"]
        # Remote code may have placeholders that are not in its config (LLaVA's own repository: -200).
        self.known = type(base).__module__.startswith("transformers.")

    @property
    def last_of_tokenizer(self) -> int:
        """The highest token id of the tokenizer, or -1 if it is unknown."""
        return max(getattr(self.tokenizer, "get_vocab", dict)().values(), default=-1)

    def misses(self, ids: Tensor) -> int | None:
        """Return the first token id without a row, or None."""
        wrong = ids[(ids < 0) | (ids >= self.rows)].tolist()
        return next((each for each in wrong if each not in self.placeholders), None)

    def error(self, where: str, number: int) -> NoiseError:
        """Return the error for a token id without a row.

        Args:
            where: record and column, for the message.
            number: the token id.
        """
        size = self.last_of_tokenizer + 1
        hint = "make them with the tokenizer of the model"
        if self.tokenizer is not None and self.rows <= number < size:
            token = self.tokenizer.convert_ids_to_tokens(number)
            hint = f"the tokenizer has {size} tokens, {token!r} among them: model.resize_token_embeddings({size})"
        return NoiseError(
            f"{where} must be token ids from 0 to {self.rows - 1}, which the embedding of {self.name} has rows for, "
            f"got {number}: {hint}."
        )


def check_vocabulary(model: nn.Module, tokenizer: Any, splits: Mapping[str, Any]) -> None:
    """Raise for a token id in tokenized data that has no embedding row; of a stream, only the first records are read.

    Args:
        model: a transformers or PEFT model.
        tokenizer: tokenizer or processor of the data, or None if unknown.
        splits: data by name, or mappings of splits; anything that is not a dataset is not checked.

    Raises:
        NoiseError: with the record, the column, the token id and a remedy.
    """
    vocabulary = Vocabulary(model, tokenizer)
    if not vocabulary.known or not vocabulary.rows:
        return
    for name, given in splits.items():
        if isinstance(given, Mapping):
            check_vocabulary(model, tokenizer, {f"{name}[{key!r}]": split for key, split in given.items()})
        elif hasattr(given, "with_format"):
            _check(given, name, vocabulary)


@contextmanager
def named_token_ids(model: nn.Module, inputs: Any, tokenizer: Any = None) -> Iterator[None]:
    """Raise an error that names the token id if a lookup inside this context fails, for data not checked in advance.

    Args:
        model: the model that is called inside.
        inputs: its inputs by name, or the records of a trainer that generates.
        tokenizer: of the data, or None if unknown.

    Raises:
        NoiseError: if an index is out of range because a token id or the tokenizer has no row for it.
    """
    try:
        yield
    except IndexError as error:
        vocabulary = Vocabulary(model, tokenizer)
        tensors = inputs.items() if isinstance(inputs, Mapping) and vocabulary.rows else ()
        for name, ids in tensors:
            if name.endswith(("input_ids", "labels")) and isinstance(ids, Tensor):
                ids = ids[ids != IGNORED] if name.endswith("labels") else ids
                if (number := vocabulary.misses(ids)) is not None:
                    raise vocabulary.error(name, number) from None
        if (last := vocabulary.last_of_tokenizer) >= vocabulary.rows > 0 and not tensors:
            raise vocabulary.error("what is generated from", last) from error
        raise


def _check(data: Any, source: str, vocabulary: Vocabulary) -> None:
    """Check a split, starting with the whole table that it may be a selection of."""
    if hasattr(data, "data") and not any(_beyond(data.data.column(name), vocabulary) for name in _columns(data)):
        return
    start, whole = 1, hasattr(data, "select")
    if not whole and not begins_anew(data, source):
        return
    for table in islice(data.with_format("arrow").iter(BATCH if whole else PEEKED), None if whole else 1):
        for name in (name for name in COLUMNS if name in table.column_names):
            if not _beyond(table.column(name), vocabulary):
                continue
            for at, ids in enumerate(table.column(name).to_pylist()):
                wrong = (each for each in ids or () if not 0 <= each < vocabulary.rows)
                number = next((each for each in wrong if each not in vocabulary.placeholders), None)
                if number is not None:
                    raise vocabulary.error(f"{source}, record {start + at} as tokenized: {name}", number)
        start += len(table)


def _columns(data: Any) -> list[str]:
    return [name for name in COLUMNS if name in (data.column_names or ())]


def _beyond(column: pa.ChunkedArray, vocabulary: Vocabulary) -> bool:
    """Return whether a column of lists of whole numbers has an id without a row."""
    kind = column.type
    if not hasattr(kind, "value_type") or not pa.types.is_integer(kind.value_type):
        return False
    ends = [pc.call_function("min_max", [chunk.flatten()]).as_py() for chunk in column.chunks]
    return any(each["min"] is not None and (each["min"] < 0 or each["max"] >= vocabulary.rows) for each in ends)


def _rows(model: nn.Module) -> int:
    """Return the number of rows in the token embedding, or 0 if it cannot be found."""
    try:
        table = find_table(model)
    except (NoiseError, AttributeError, AssertionError):
        return 0
    return int(getattr(table, "ds_shape", table.shape)[0])  # under ZeRO-3 the weight itself is empty
