"""The noise in a recipe or on a command line, and other flags that TRL's parser does not have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neft_zoo.config import recipe
from neft_zoo.errors import NoiseError, shown
from neft_zoo.training.ranges import check_ranges
from neft_zoo.training.stock_noise import stock_noise


def take_config(argv: list[str]) -> tuple[list[str], str | None]:
    """Remove `--config` from a command line, and return both."""
    for index, argument in enumerate(argv):
        if argument == "--config":
            if index + 1 == len(argv):
                raise NoiseError("--config needs a YAML file or a recipe's name.")
            return argv[:index] + argv[index + 2 :], argv[index + 1]
        if argument.startswith("--config="):
            return argv[:index] + argv[index + 1 :], argument.removeprefix("--config=")
    return list(argv), None


def take_noise(argv: list[str], noise: Any) -> tuple[list[str], Any]:
    """Remove the noise from a command line, and return the rest and the recipe's noise with the flags applied.

    `--noise NAME` replaces the recipe's noise; `--noise.argument VALUE` changes one of its arguments.

    Raises:
        NoiseError: if a flag has no value, or there is an argument without a strategy.
    """
    rest: list[str] = []
    dotted: dict[str, object] = {}
    arguments = iter(argv)
    for argument in arguments:
        flag, has_value, value = argument.partition("=")
        if flag != "--noise" and not flag.startswith("--noise."):
            rest.append(argument)
            continue
        if not has_value:
            value = next(arguments, "")
        if not value:
            raise NoiseError(f"{flag} needs a value.")
        if flag == "--noise":
            noise = _from_yaml(flag, value)
        else:
            dotted[flag.removeprefix("--noise.")] = _from_yaml(flag, value)
    if not dotted:
        return rest, None if noise is False else noise
    block: dict[str, object] = {"name": noise} if isinstance(noise, str) else noise or {}
    if not isinstance(block, dict):
        raise NoiseError(f"--noise must be a name or a mapping with a name, got {shown(block)}.")
    block = dict(block)
    if "name" not in block:
        raise NoiseError(f"--noise.{next(iter(dotted))} needs a strategy: give --noise NAME as well.")
    for key, value in dotted.items():
        _put(block, key.split("."), value)
    return rest, block


def read_noise(text: str | None) -> str | dict[str, object] | None:
    """Return the noise in a command's `--noise`: a name, or a mapping in YAML.

    Raises:
        NoiseError: if it is neither.
    """
    if text is None or text.isidentifier():
        return text
    try:
        value = recipe.read_yaml(text)[1]
    except ValueError:
        value = None
    if not isinstance(value, str | dict):
        raise NoiseError(f"noise must be a name or a mapping with a name, got {shown(text)}.")
    return value


def with_stock_noise(values: Mapping[str, object]) -> dict[str, Any]:
    """Return options with a strategy in place of transformers' own noise, so that checkpoints record it."""
    options = dict(values)
    alpha = options.get("neftune_noise_alpha")
    if alpha is None or options.get("noise") not in (None, False):
        return options
    alpha = _number(alpha)
    check_ranges({"neftune_noise_alpha": alpha})
    del options["neftune_noise_alpha"]
    options["noise"] = stock_noise(alpha)
    return options


def _number(value: object) -> object:
    """Return the number in a text, which YAML reads from `1e1`."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _from_yaml(flag: str, text: str) -> object:
    try:
        value = recipe.read_yaml(text)[1]
    except ValueError:
        raise NoiseError(f"{shown(flag)} must be a name, a number or a mapping, got {shown(text)}.") from None
    return text if value is None else value


def _put(block: dict[str, object], keys: list[str], value: object) -> None:
    """Set a nested value: `alpha.schedule` is set in the mapping `alpha`."""
    key, *inner = keys
    if inner:
        known = block.get(key)
        nested = dict(known) if isinstance(known, dict) else {}
        _put(nested, inner, value)
        value = nested
    block[key] = value
