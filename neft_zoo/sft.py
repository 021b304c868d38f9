"""`neft-zoo sft`: TRL's fine-tuning command, with `noise`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from datasets import DatasetDict, IterableDatasetDict, load_dataset
from trl.scripts.utils import DatasetMixtureConfig, ScriptArguments, TrlParser, get_dataset
from trl.trainer.model_config import ModelConfig
from trl.trainer.utils import get_peft_config, get_quantization_config

from neft_zoo import recipe
from neft_zoo.errors import NoiseError
from neft_zoo.flags import take_config, take_noise
from neft_zoo.registry import make
from neft_zoo.trainers import NoiseSFTConfig, SFTTrainer

BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}
Arguments = tuple[ScriptArguments, NoiseSFTConfig, ModelConfig, DatasetMixtureConfig]


def parser() -> TrlParser:
    """Return TRL's own parser, over our config."""
    types: Any = (ScriptArguments, NoiseSFTConfig, ModelConfig, DatasetMixtureConfig)
    return TrlParser(types, prog="neft-zoo sft")


def parse(argv: list[str]) -> Arguments:
    """Read a recipe and the command line; the command line wins.

    Raises:
        NoiseError: if an option or its value is not accepted, or a local path does not exist.
    """
    reader, argv = read(argv)
    try:
        arguments: Any = reader.parse_args_into_dataclasses(args=argv)
    except NoiseError:
        raise
    except (ValueError, TypeError) as error:
        raise NoiseError(f"the options do not fit: {' '.join(str(error).split())}") from None
    _check_paths(arguments)
    return arguments


def read(argv: list[str]) -> tuple[TrlParser, list[str]]:
    """Return a parser whose defaults are the recipe's, and the command line that is left for it.

    Raises:
        NoiseError: if the recipe or the noise is not accepted.
    """
    argv, name = take_config(argv)
    reader = parser()
    found = recipe.load(name) if name is not None else recipe.Recipe({}, {})
    for variable, value in (found.values.pop("env", None) or {}).items():
        os.environ[variable] = str(value)
    found.check_keys({action.dest for action in reader._actions} - {"help"})
    argv, noise = take_noise(argv, found.values.pop("noise", None))
    if noise is not None:
        make(noise)  # before TRL's parser, which would not say what is wrong with it
        argv += ["--noise", noise if isinstance(noise, str) else json.dumps(noise)]
    reader.set_defaults_with_config(**found.values)
    return reader, argv


def run(argv: list[str]) -> None:
    """Fine-tune as the command line says and save the model."""
    script, training, model, mixture = parse(argv)
    training.model_init_kwargs = {
        "revision": model.model_revision,
        "trust_remote_code": training.trust_remote_code,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        **(training.model_init_kwargs if isinstance(training.model_init_kwargs, dict) else {}),
    }
    data: Any = get_dataset(mixture) if mixture.datasets else load_data(script)
    for split in (script.dataset_train_split, script.dataset_test_split):
        if split not in data and (split == script.dataset_train_split or training.eval_strategy != "no"):
            raise NoiseError(f"the dataset must have a split {split!r}, got {', '.join(data)}.")
    data = data.map(alpaca_record, remove_columns=list(_columns(data))) if _is_alpaca(data) else data
    trainer = SFTTrainer(
        model=str(model.model_name_or_path),
        args=training,
        train_dataset=data[script.dataset_train_split],
        eval_dataset=data[script.dataset_test_split] if training.eval_strategy != "no" else None,
        quantization_config=get_quantization_config(model),
        peft_config=get_peft_config(model),
    )
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model(training.output_dir)
    trainer.accelerator.print(f"Model and noise.json saved to {training.output_dir}")
    if training.push_to_hub:
        trainer.push_to_hub(dataset_name=script.dataset_name)
    trainer.end()


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


def alpaca_record(record: dict[str, Any]) -> dict[str, str]:
    """Return a record of `instruction`, `input` and `output` as prompt and completion, in Alpaca's template."""
    has_input = bool((record.get("input") or "").strip())
    task = "an instruction and an input that gives it context" if has_input else "an instruction"
    blocks = [f"Below is {task}. Write a response that completes the request."]
    blocks += [f"### Instruction:\n{record['instruction']}"]
    blocks += [f"### Input:\n{record['input']}"] if has_input else []
    return {"prompt": "\n\n".join([*blocks, "### Response:\n"]), "completion": record["output"]}


def _columns(data: DatasetDict | IterableDatasetDict) -> list[str]:
    """Return the columns of the first split."""
    split: Any = next(iter(data.values()))
    return list(split.column_names or next(iter(split)))


def _is_alpaca(data: DatasetDict | IterableDatasetDict) -> bool:
    """Return whether the records are instructions; TRL knows every other format by itself."""
    columns = _columns(data)
    return {"instruction", "output"} <= set(columns) and not {"prompt", "messages"} & set(columns)


def _check_paths(arguments: Arguments) -> None:
    """Raise if a path on this machine does not exist: the hub would be asked for it, minutes later."""
    script, training, model, mixture = arguments
    if not model.model_name_or_path:
        raise NoiseError("model_name_or_path must be a model's folder or its name on the hub, got nothing.")
    if not mixture.datasets and not script.dataset_name:
        raise NoiseError("dataset_name must be a dataset's folder, file or name on the hub, got nothing.")
    paths = {"model_name_or_path": model.model_name_or_path}
    if not mixture.datasets:
        paths["dataset_name"] = str(script.dataset_name)
    for option, value in paths.items():
        local = value.startswith((".", "/", "~")) or value.count("/") > 1 or Path(value).suffix in BUILDERS
        if local and not Path(value).expanduser().exists():
            raise NoiseError(f"{option} must be an existing path or a name on the hub, got {value!r}.")
    resumed = training.resume_from_checkpoint
    if isinstance(resumed, str) and resumed.lower() in ("true", "false"):
        training.resume_from_checkpoint = resumed.lower() == "true"  # type: ignore[assignment]
    elif resumed and not Path(str(resumed)).is_dir():
        raise NoiseError(f"resume_from_checkpoint must be true or a checkpoint's folder, got {resumed!r}.")
