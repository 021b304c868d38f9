"""Reading a recipe and command-line options into TRL's configs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NoReturn

from trl.scripts.utils import DatasetMixtureConfig, ScriptArguments, TrlParser
from trl.trainer.model_config import ModelConfig
from trl.trainer.utils import get_peft_config, get_quantization_config

from neft_zoo.config import recipe
from neft_zoo.config.data import BUILDERS, as_prompts, read_splits
from neft_zoo.config.noise_flags import take_config, take_noise
from neft_zoo.errors import NoiseError, shown
from neft_zoo.registry.entries import make
from neft_zoo.training.hf_internals import options_of
from neft_zoo.training.sft_config import NoiseSFTConfig

Arguments = tuple[ScriptArguments, NoiseSFTConfig, ModelConfig, DatasetMixtureConfig]


class Parser(TrlParser):
    """TRL's own parser, over our config; it raises where argparse would print its usage and exit."""

    def __init__(self) -> None:
        types: Any = (ScriptArguments, NoiseSFTConfig, ModelConfig, DatasetMixtureConfig)
        super().__init__(types, prog="neft-zoo sft", allow_abbrev=False)  # `--noi` would pass `--noise` by

    def error(self, message: str) -> NoReturn:
        raise NoiseError(f"the options do not fit: {' '.join(message.split())[:500]}.")


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
    except Exception as error:  # the checks of four libraries' configs raise what they like
        raise NoiseError(f"the options do not fit: {' '.join(repr(error).split())[:500]}") from None
    _check_paths(arguments)
    return arguments


def read(argv: list[str]) -> tuple[TrlParser, list[str]]:
    """Return a parser whose defaults are the recipe's, and the command line that is left for it.

    Raises:
        NoiseError: if the recipe or the noise is not accepted.
    """
    argv, name = take_config(argv)
    reader = Parser()
    found = recipe.load(name) if name is not None else recipe.Recipe({}, {})
    _set_environment(found.values.pop("env", None) or {})
    found.check_keys({action.dest for action in options_of(reader)} - {"help"})
    _check_numbers(found, reader)
    argv, noise = take_noise(argv, found.values.pop("noise", None))
    if noise is not None:
        make(noise)  # before TRL's parser, which would not say what is wrong with it
        argv += ["--noise", noise if isinstance(noise, str) else json.dumps(noise)]
    reader.set_defaults_with_config(**found.values)
    return reader, argv


def trainer_arguments(arguments: Arguments) -> dict[str, Any]:
    """Return what the trainer is made from; the data is loaded here.

    Raises:
        NoiseError: if the data lacks a split that is needed.
    """
    script, training, model, mixture = arguments
    training.model_init_kwargs = init_kwargs(training, model)
    data = as_prompts(read_splits(script, training, mixture))
    return dict(
        model=str(model.model_name_or_path),
        args=training,
        train_dataset=data[script.dataset_train_split],
        eval_dataset=data[script.dataset_test_split] if training.eval_strategy != "no" else None,
        quantization_config=get_quantization_config(model),
        peft_config=get_peft_config(model),
    )


def init_kwargs(training: NoiseSFTConfig, model: ModelConfig) -> dict[str, Any]:
    """Return what the model is loaded with."""
    return {
        "revision": model.model_revision,
        "trust_remote_code": training.trust_remote_code,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        **(training.model_init_kwargs if isinstance(training.model_init_kwargs, dict) else {}),
    }


def _check_numbers(found: recipe.Recipe, reader: Parser) -> None:
    """Raise if a recipe has a list or a mapping for a number: argparse reads texts only and takes it as it is."""
    for action in options_of(reader):
        value = found.values.get(action.dest)
        if action.type in (int, float) and action.nargs is None and not isinstance(value, int | float | str | None):
            raise NoiseError(f"{found.origin[action.dest]}: {action.dest} must be a number, got {shown(value)}.")


def _set_environment(variables: Any) -> None:
    if not isinstance(variables, dict):
        raise NoiseError(f"env must be a mapping of variables, got {shown(variables)}.")
    for variable, value in variables.items():
        try:
            os.environ[variable] = str(value)
        except (ValueError, TypeError, OSError):
            raise NoiseError(f"env must be a mapping of variables, got {shown({variable: value})}.") from None


def _check_paths(arguments: Arguments) -> None:
    """Raise if a path on this machine does not exist: the hub would be asked for it, minutes later."""
    script, training, model, mixture = arguments
    if not model.model_name_or_path or not isinstance(model.model_name_or_path, str):
        raise NoiseError(
            "model_name_or_path must be a model's folder or its name on the hub, got "
            f"{shown(model.model_name_or_path) if model.model_name_or_path else 'nothing'}."
        )
    if not mixture.datasets and not script.dataset_name:
        raise NoiseError("dataset_name must be a dataset's folder, file or name on the hub, got nothing.")
    paths = {"model_name_or_path": model.model_name_or_path}
    if not mixture.datasets:
        paths["dataset_name"] = str(script.dataset_name)
    for option, value in paths.items():
        local = value.startswith((".", "/", "~")) or value.count("/") > 1 or Path(value).suffix in BUILDERS
        if local and not recipe.exists(Path(os.path.expanduser(value)), Path.exists):
            raise NoiseError(f"{option} must be an existing path or a name on the hub, got {shown(value)}.")
    resumed = training.resume_from_checkpoint
    if isinstance(resumed, str) and resumed.lower() in ("true", "false"):
        training.resume_from_checkpoint = resumed.lower() == "true"  # type: ignore[assignment]
    elif resumed and not recipe.exists(Path(str(resumed)), Path.is_dir):
        raise NoiseError(f"resume_from_checkpoint must be true or a checkpoint's folder, got {shown(resumed)}.")
