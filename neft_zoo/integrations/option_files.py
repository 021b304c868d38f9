"""Reading other frameworks' options from a YAML file and from `NAME=VALUE`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neft_zoo.config.recipe import read_yaml
from neft_zoo.errors import NoiseError, as_sentence
from neft_zoo.integrations.checks import check_version
from neft_zoo.redaction import remember


def read(framework: str, file: str, overrides: list[str]) -> dict[str, Any]:
    """Return the options in a framework's file, read in that framework's way.

    Args:
        framework: the name of its module here.
        file: path of the file.
        overrides: options that replace those of the file, as `name=value`.

    Raises:
        NoiseError: if no supported version of the framework is installed, or the file cannot be read.
    """
    check_version(framework)
    with as_sentence(f"{file} must be a YAML file of {framework}'s options"):
        load = _by_omegaconf if framework == "llamafactory" else _by_yaml
        values = load(Path(file), overrides)
    if not isinstance(values, dict):
        raise NoiseError(f"{file} must be a mapping of options, got {type(values).__name__}.")
    remember(values)
    return values


# OmegaConf also reads 1e-4 as a number, which YAML 1.1 does not.
# https://github.com/hiyouga/LLaMA-Factory/blob/v0.9.5/src/llamafactory/hparams/parser.py
def _by_omegaconf(file: Path, overrides: list[str]) -> Any:
    from omegaconf import OmegaConf  # pyright: ignore[reportMissingImports]

    return OmegaConf.to_container(OmegaConf.merge(OmegaConf.load(file), OmegaConf.from_cli(overrides)))


def _by_yaml(file: Path, overrides: list[str]) -> Any:
    values = read_yaml(file.read_text(encoding="utf-8"))[1]
    given = (each.partition("=") for each in overrides)
    return {**values, **{name: read_yaml(text)[1] for name, _, text in given}} if isinstance(values, dict) else values
