"""Reading a recipe's dataset: splits by name, folder or file, each checked against TRL's formats."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from datasets import DatasetDict, IterableDatasetDict, load_dataset
from trl.scripts.utils import DatasetMixtureConfig, ScriptArguments, get_dataset

from neft_zoo.errors import NoiseError, one_line
from neft_zoo.noise.schedules import check_number
from neft_zoo.training.data_conversion import alpaca_record as alpaca_record
from neft_zoo.training.data_conversion import as_messages
from neft_zoo.training.data_conversion import as_messages_record as as_messages_record
from neft_zoo.training.data_conversion import as_prompts as as_prompts
from neft_zoo.training.data_conversion import is_instruction as is_instruction
from neft_zoo.training.data_formats import check_records
from neft_zoo.training.sft_config import NoiseSFTConfig

BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}
SPLIT_SEED = 0  # not the run's seed, so that runs with different seeds are measured on the same records
Splits: TypeAlias = "DatasetDict | IterableDatasetDict"


@dataclass
class DataArguments(ScriptArguments):
    """TRL's `ScriptArguments` with an option to hold out records if the dataset has one split.

    Args:
        test_share: share of the training split to hold out as the test split, in (0, 1).
    """

    test_share: float | None = field(
        default=None,
        metadata={"help": "Share of the training split that is held out as the test split, the same in every run."},
    )


def read_splits(script: ScriptArguments, training: NoiseSFTConfig, mixture: DatasetMixtureConfig) -> Splits:
    """Return the splits that a trainer needs, after checking them.

    Raises:
        NoiseError: if a split is missing or empty, or a record is in none of TRL's formats.
    """
    evaluated = [script.dataset_test_split] if training.eval_strategy != "no" else []
    return read_checked(script, training, mixture, [script.dataset_train_split, *evaluated])


def read_checked(
    script: ScriptArguments, training: NoiseSFTConfig, mixture: DatasetMixtureConfig, wanted: Sequence[str]
) -> Splits:
    """Return the data, after checking the wanted splits.

    Raises:
        NoiseError: if one of them is missing or empty, or has a record in none of TRL's formats.
    """
    data = read_data(script, mixture)
    source = str(script.dataset_name) if not mixture.datasets else "the mixture of datasets"
    skipped = isinstance(training.dataset_kwargs, dict) and training.dataset_kwargs.get("skip_prepare_dataset")
    for split in wanted:
        if split not in data:
            one = script.dataset_train_split in data and split == script.dataset_test_split
            hint = ": test_share: 0.05 holds out a share of the records" if one else ""
            raise NoiseError(f"the dataset must have a split {split!r}, got {', '.join(map(str, data))}{hint}.")
        records = data[split]
        if isinstance(records, Sized) and not len(records):
            raise NoiseError(f"split {split!r} of the dataset must hold at least one record, got none.")
        if not skipped:
            first = split == wanted[0]  # the other splits have the same columns
            check_records(records, f"{source} split {split}", training.dataset_text_field, note=first)
            data[split] = as_messages(records)  # type: ignore[assignment]
    return data


def read_data(script: ScriptArguments, mixture: DatasetMixtureConfig) -> Splits:
    """Return all splits, unchecked.

    Raises:
        NoiseError: if the dataset cannot be read or is empty.
    """
    try:
        with _without_remark():
            data = get_dataset(mixture) if mixture.datasets else load_data(script)
    except NoiseError:
        raise
    except Exception as error:  # from builders, file systems and the hub; an empty file raises StopIteration
        cause = str(error.__cause__ or error) and one_line(error.__cause__ or error)
        cause = cause or "a file holds no record"
        raise NoiseError(f"the recipe's dataset must be readable and its files not empty: {cause}.") from None
    share = getattr(script, "test_share", None)
    return data if share is None else hold_out(data, script, share)


@contextmanager
def _without_remark() -> Iterator[None]:
    """Suppress the hub client's warning about a folder whose README.md has no metadata, such as the shipped data's."""
    logger = logging.getLogger("huggingface_hub.repocard")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def hold_out(data: Splits, script: ScriptArguments, share: float) -> DatasetDict:
    """Return the data with a share of its training split as the test split.

    Raises:
        NoiseError: if the share is not in (0, 1), there is a test split, or the data is streamed.
    """
    check_number("test_share", share, 0, 1)
    train, test = script.dataset_train_split, script.dataset_test_split
    if test in data or train not in data or isinstance(data, IterableDatasetDict):
        kind = "a stream" if isinstance(data, IterableDatasetDict) else f"the splits {', '.join(map(str, data))}"
        raise NoiseError(f"test_share needs a dataset that is in memory, with {train!r} and no {test!r}, got {kind}.")
    records = data[train]
    held_out = round(share * len(records))
    if not 0 < held_out < len(records):
        raise NoiseError(f"test_share must leave a record for each split, got {share} of {len(records)} records.")
    parts = records.train_test_split(test_size=held_out, seed=SPLIT_SEED)
    return DatasetDict({**data, train: parts["train"], test: parts["test"]})


def load_data(script: ScriptArguments) -> Splits:
    """Return a dataset by name, folder or file; a single file is the split `train`.

    Raises:
        NoiseError: if the file type is not supported.
    """
    path = Path(str(script.dataset_name)).expanduser()
    if path.is_file():
        if path.suffix not in BUILDERS:
            raise NoiseError(f"dataset_name must be a file of type {', '.join(BUILDERS)}, got {path}.")
        files = {"train": str(path)}
        return load_dataset(BUILDERS[path.suffix], data_files=files, streaming=script.dataset_streaming)
    name = str(path) if path.is_dir() else str(script.dataset_name)
    return load_dataset(name, name=script.dataset_config, streaming=script.dataset_streaming)
