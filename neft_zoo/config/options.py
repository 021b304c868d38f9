"""`RunOptions`: the TRL configs of a run, read from a recipe's options."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import torch
from trl.scripts.utils import DatasetMixtureConfig, TrlParser
from trl.trainer.model_config import ModelConfig

from neft_zoo.config import recipe
from neft_zoo.config.data import BUILDERS, DataArguments
from neft_zoo.config.names import check_keys
from neft_zoo.config.noise_flags import with_stock_noise
from neft_zoo.errors import NoiseError, one_line, shown
from neft_zoo.redaction import remember
from neft_zoo.registry.entries import make
from neft_zoo.training.ranges import check_ranges
from neft_zoo.training.sft_config import NoiseSFTConfig

CONFIGS = (DataArguments, NoiseSFTConfig, ModelConfig, DatasetMixtureConfig)
NAMES = frozenset(option.name for config in CONFIGS for option in fields(config) if option.init)
NEWER_NAMES = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
ABSENT = object()  # not argparse.SUPPRESS, which set_defaults would set as a string
NO_ORIGIN: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class RunOptions:
    """The options of one run, as TRL's scripts group them.

    Attributes:
        script: name and splits of the dataset.
        training: the trainer's arguments, including `noise`.
        model: model, quantization and adapter.
        mixture: several datasets instead of one.
    """

    script: DataArguments
    training: NoiseSFTConfig
    model: ModelConfig
    mixture: DatasetMixtureConfig


class Parser(TrlParser):
    """TRL's own parser with our config, which raises an error instead of printing the usage and exiting."""

    def __init__(self) -> None:
        configs: Any = CONFIGS
        super().__init__(configs, prog="neft-zoo sft", allow_abbrev=False)  # `--noi` would be read as `--noise`

    def error(self, message: str) -> NoReturn:
        raise NoiseError(f"the options do not fit: {one_line(message, 500)}.")


def load_options(name: str, **overrides: object) -> RunOptions:
    """Return the options of a recipe.

    Args:
        name: a recipe's name or file.
        **overrides: options that replace the recipe's.

    Raises:
        NoiseError: if the recipe, or an option in it, is invalid.
    """
    loaded = recipe.load(name)
    return read_options(recipe.over(loaded.values, overrides), loaded.origin)


def read_options(values: Mapping[str, object], origin: Mapping[str, str] = NO_ORIGIN) -> RunOptions:
    """Return the options in a mapping, with TRL's defaults for the others.

    Strings are converted as on the command line, since YAML reads `1e-3` as a string. `env` sets environment
    variables.

    Args:
        values: options by name, with `noise` as for `registry.make`.
        origin: file and line of each option, for messages.

    Raises:
        NoiseError: if an option or its value is invalid, or a local path does not exist.
    """
    options = with_precision(with_newer_names(with_stock_noise(values)))
    remember(options)
    _set_environment(options.pop("env", None) or {})
    check_keys(options, NAMES, origin)
    noise: Any = options.get("noise")
    if noise is not None and noise is not False:  # YAML reads `noise: off` as False
        make(noise)  # before TRL's parser, whose message would not explain the error
    _check_numbers(options, origin)
    reader = Parser()
    reader.set_defaults(**options)
    try:
        configs: Any = reader.parse_args_into_dataclasses(args=[], look_for_args_file=False)
    except NoiseError:
        raise
    except Exception as error:  # from the checks of four libraries' configs
        raise NoiseError(f"the options do not fit: {one_line(repr(error), 500)}") from None
    run = RunOptions(*configs)
    _hand_over_tokens(run.training)
    check_ranges({name: value for config in configs for name, value in vars(config).items()})
    _check_paths(run)
    return run


def with_precision(values: Mapping[str, object]) -> dict[str, object]:
    """Return options that work on this machine: those for a CPU without an accelerator, unless `use_cpu` is given."""
    return dict(values) if torch.accelerator.is_available() else {"use_cpu": True, **values}


def with_newer_names(values: Mapping[str, object]) -> dict[str, object]:
    """Return options under their names in this version of transformers, which warns about older names."""
    options = dict(values)
    for old, new in NEWER_NAMES.items():
        if new in NAMES and old in options:
            value = options.pop(old)
            options.setdefault(new, value)
    return options


def parse_flags(argv: Sequence[str]) -> dict[str, object]:
    """Return the options on a command line, with the types of TRL's configs.

    Raises:
        NoiseError: if an option or its value is invalid.
    """
    return _parse(argv, {})


def convert(options: Mapping[str, object]) -> dict[str, object]:
    """Return options with strings converted as on a command line: equal values are equal in any spelling.

    Raises:
        NoiseError: if an option or its value is invalid.
    """
    check_keys(options, {*NAMES, "env"}, NO_ORIGIN)
    _check_numbers(options, NO_ORIGIN)
    return _parse([], options)


def _parse(argv: Sequence[str], defaults: Mapping[str, object]) -> dict[str, object]:
    reader = Parser()
    reader.set_defaults(**{**dict.fromkeys(NAMES, ABSENT), **defaults})
    return {name: value for name, value in vars(reader.parse_args(list(argv))).items() if value is not ABSENT}


def _check_numbers(options: Mapping[str, object], origin: Mapping[str, str]) -> None:
    """Raise for anything in place of a number that argparse would pass on unchecked."""
    for name, kinds in _kinds().items():
        value = options.get(name, ABSENT)
        if value is ABSENT or not kinds & {int, float} or kinds & {str, list}:
            continue
        given = isinstance(value, int | float | str) and not isinstance(value, bool)
        if not given and not (value is None and type(None) in kinds):
            raise NoiseError(f"{origin.get(name, 'the recipe')}: {name} must be a number, got {shown(value)}.")


def _kinds() -> dict[str, set[object]]:
    """Return the types that each option accepts."""
    hints = {name: hint for config in CONFIGS for name, hint in get_type_hints(config).items() if name in NAMES}
    return {name: {hint, *(get_origin(kind) or kind for kind in get_args(hint))} for name, hint in hints.items()}


def _set_environment(variables: object) -> None:
    if not isinstance(variables, dict):
        raise NoiseError(f"env must be a mapping of variables, got {shown(variables)}.")
    for variable, value in variables.items():
        try:
            os.environ[variable] = str(value)
        except (ValueError, TypeError, OSError):
            raise NoiseError(f"env must be a mapping of variables, got {shown({variable: value})}.") from None


def _hand_over_tokens(training: NoiseSFTConfig) -> None:
    """Move the hub's token into the environment, where the hub client finds it: all options are saved with a model."""
    kwargs: Any = training.model_init_kwargs
    tokens = [kwargs.pop("token", None) if isinstance(kwargs, dict) else None, training.hub_token]
    for token in tokens:
        if isinstance(token, str) and token:
            remember(token, "token")
            _set_environment({"HF_TOKEN": token})
    training.hub_token = None


def _check_paths(options: RunOptions) -> None:
    """Raise if a local path does not exist; otherwise it would be looked up on the hub, minutes later."""
    name, script, training = options.model.model_name_or_path, options.script, options.training
    if not name or not isinstance(name, str):
        raise NoiseError(
            "model_name_or_path must be a model's folder or its name on the hub, got "
            f"{shown(name) if name else 'nothing'}."
        )
    if not options.mixture.datasets and not script.dataset_name:
        raise NoiseError("dataset_name must be a dataset's folder, file or name on the hub, got nothing.")
    paths = {"model_name_or_path": name}
    if not options.mixture.datasets:
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
