"""Reading a recipe's dataset: splits by name, folder or file, and Alpaca's columns as prompt and completion."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from pathlib import Path
from typing import Any

from datasets import DatasetDict, IterableDatasetDict, load_dataset
from datasets.exceptions import DatasetGenerationError
from trl.scripts.utils import DatasetMixtureConfig, ScriptArguments, get_dataset

from neft_zoo.errors import NoiseError
from neft_zoo.training.sft_config import NoiseSFTConfig

BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}


def read_splits(script: ScriptArguments, training: NoiseSFTConfig, mixture: DatasetMixtureConfig) -> Any:
    """Load the data.

    Raises:
        NoiseError: if a split that is needed is not there or empty.
    """
    data: Any = read_data(script, mixture)
    for split in (script.dataset_train_split, script.dataset_test_split):
        needed = split == script.dataset_train_split or training.eval_strategy != "no"
        if split not in data and needed:
            raise NoiseError(f"the dataset must have a split {split!r}, got {', '.join(data)}.")
        if needed and isinstance(data[split], Sized) and not len(data[split]):
            raise NoiseError(f"split {split!r} of the dataset must hold at least one record, got none.")
    return data


def read_data(script: ScriptArguments, mixture: DatasetMixtureConfig) -> Any:
    """Load all splits.

    Raises:
        NoiseError: if a file cannot be read or is empty.
    """
    try:
        return get_dataset(mixture) if mixture.datasets else load_data(script)
    except NoiseError:
        raise
    except (DatasetGenerationError, ValueError, StopIteration) as error:  # an empty file is one of the latter two
        cause = " ".join(str(error.__cause__ or error).split()) or "a file holds no record."
        raise NoiseError(f"the recipe's dataset must be readable and its files not empty: {cause}") from None


def as_prompts(data: Any) -> Any:
    """Return instructions as prompts and completions, and all other data as it is."""
    return data.map(alpaca_record, remove_columns=list(_columns(data))) if is_instruction(_columns(data)) else data


def load_data(script: ScriptArguments) -> DatasetDict | IterableDatasetDict:
    """Load a dataset by name, folder or file; a single file has one split, `train`."""
    path = Path(str(script.dataset_name)).expanduser()
    if path.is_file():
        if path.suffix not in BUILDERS:
            raise NoiseError(f"dataset_name must be a file of type {', '.join(BUILDERS)}, got {path}.")
        files = {"train": str(path)}
        return load_dataset(BUILDERS[path.suffix], data_files=files, streaming=script.dataset_streaming)
    name = str(path) if path.is_dir() else str(script.dataset_name)
    return load_dataset(name, name=script.dataset_config, streaming=script.dataset_streaming)


def _columns(data: DatasetDict | IterableDatasetDict) -> list[str]:
    """Return the columns of the first split."""
    split: Any = next(iter(data.values()))
    return list(split.column_names or next(iter(split)))


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
