"""A recipe: a TRL config in YAML, plus `noise:`, `extends:` and `margins:`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from neft_zoo.config.declared import config_options
from neft_zoo.config.names import check_keys
from neft_zoo.config.package_data import folder as folder
from neft_zoo.errors import NoiseError, did_you_mean, one_line, shown
from neft_zoo.redaction import remember

PLACEHOLDER = "{recipes}"
SHORT = ("strategies/", "controls/")
LARGEST = 10_000
NOISES = ("noise", "neftune_noise_alpha")


@dataclass(frozen=True)
class Recipe:
    """A recipe with all recipes that it extends merged in.

    Attributes:
        values: the options.
        origin: file and line of each option, for messages.
        margins: margins of practical equivalence for comparisons, by metric; not an option of a run.
    """

    values: dict[str, Any]
    origin: dict[str, str]
    margins: object = None


# Folder of configs that other frameworks read.
FOREIGN = "integrations/"


def names() -> list[str]:
    """Return the names of the shipped recipes, such as `quickstart` or `paper/llama2-7b-alpaca`."""
    found = (path.relative_to(folder()).with_suffix("").as_posix() for path in folder().rglob("*.yaml"))
    return sorted(name for name in found if not name.startswith(FOREIGN))


def find(name: str, extended_by: Path | None = None) -> Path:
    """Return the file of a recipe: a path (from here, or beside the recipe that extends it), or a shipped name.

    Recipes of strategies and controls can be found without their folder.

    Raises:
        NoiseError: if there is none; the message suggests a similar name.
    """
    if extended_by is None:
        candidates = [Path(os.path.expanduser(name))]
    else:
        candidates = [extended_by.parent / name, extended_by.parent / f"{name}.yaml"]
    candidates += [folder() / place / f"{name}.yaml" for place in ("", *SHORT)]
    for path in candidates:
        # A copy of `quickstart` may be named quickstart.yaml and extend the shipped one.
        if exists(path) and path != extended_by:
            return path
    short = [shipped.rpartition("/")[2] for shipped in names() if shipped.startswith(SHORT)]
    near = did_you_mean(name, [*names(), *short])
    raise NoiseError(f"config must be a YAML file or a name that neft-zoo recipes ls shows, got {shown(name)}{near}")


def load(name: str) -> Recipe:
    """Read a recipe and those it extends; each of its options replaces the extended one entirely.

    Raises:
        NoiseError: if a file is missing, is not YAML or not a mapping, has a duplicate or unknown key, or extends
            itself.
    """
    chain: list[Path] = []
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    path: Path | None = find(name)
    while path is not None:
        if path.resolve() in chain:
            raise NoiseError(f"extends must not lead back to the recipe itself, got {path}.")
        chain.append(path.resolve())
        mine, lines = _read(path)
        parent = mine.pop("extends", None)
        if parent is not None and not isinstance(parent, str):
            raise NoiseError(f"{path}: extends must be one recipe's name or path, got {shown(parent)}.")
        values = over(mine, values)
        origin = {**{key: f"{path} line {lines[key]}" for key in mine}, **origin}
        path = None if parent is None else find(parent, extended_by=path)
    margins = values.pop("margins", None)
    remember(values)
    options = config_options()
    check_keys(values, {*options, "env"} if options else (), origin)
    return Recipe({key: _fill(value) for key, value in values.items()}, origin, margins)


def over(extended: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options merged over those that they extend.

    Noise of one kind, ours or transformers', also replaces extended noise of the other kind.
    """
    given = [name for name in NOISES if name in options]
    replaced = NOISES if len(given) == 1 and (given[0] == "noise" or options[given[0]] is not None) else ()
    return {name: value for name, value in extended.items() if name not in replaced} | dict(options)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the options of one file and the line of each."""
    try:
        node, values = read_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise NoiseError(f"{path} must be YAML: {one_line(error)}.") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise NoiseError(f"{path} must be a mapping of options, got {type(values).__name__}.")
    assert isinstance(node, yaml.MappingNode)
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if key.value in lines:
            raise NoiseError(f"{path} line {key.start_mark.line + 1}: {shown(key.value)} is given twice.")
        lines[key.value] = key.start_mark.line + 1
    return values, lines


def read_yaml(text: str) -> tuple[yaml.Node | None, object]:
    """Return the nodes and the value of a YAML text, read by PyYAML's safe loader.

    Raises:
        ValueError: if it is not YAML, a tag does not match its text, or aliases make it circular or huge.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if _size(node, {}) > LARGEST:
            raise ValueError(f"it has more than {LARGEST} entries")
        return node, None if node is None else loader.construct_document(node)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    # Raised by PyYAML's constructors for `!!bool x`, `!!timestamp x`, `2001-99-99` and `0b_`.
    except (yaml.YAMLError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(str(error) or "it cannot be read") from None


def _size(node: yaml.Node | None, known: dict[int, int]) -> int:
    """Return the number of nodes after expanding aliases; a circular one counts as too large."""
    if node is None or not isinstance(node.value, list):
        return 1
    if id(node) not in known:
        known[id(node)] = LARGEST + 1  # until it is finished, an alias to it from inside is circular
        children = [part for child in node.value for part in (child if isinstance(child, tuple) else (child,))]
        known[id(node)] = 1 + sum(_size(child, known) for child in children)
    return known[id(node)]


def exists(path: Path, kind: Callable[[Path], bool] = Path.is_file) -> bool:
    """Return whether a file exists; False for names that no file can have."""
    try:
        return kind(path)
    except (OSError, ValueError):
        return False


def _fill(value: object) -> object:
    """Replace `{recipes}` in a recipe by the folder of the shipped recipes."""
    if isinstance(value, str):
        return value.replace(PLACEHOLDER, str(folder()))
    if isinstance(value, list):
        return [_fill(item) for item in value]
    if isinstance(value, dict):
        return {key: _fill(item) for key, item in value.items()}
    return value
