"""The registry of entries: the folder `neft_zoo/strategies/` and the entry-point group `neft_zoo.strategies`.

Nothing is listed by hand: an entry is a file with one registered function of the same name. Its signature is the
entry's schema, and its docstring the entry's page.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Literal

from neft_zoo.errors import NoiseError, did_you_mean, shown
from neft_zoo.noise.additive import Layers
from neft_zoo.noise.schedules import Scalar, parse_number, parse_scalar
from neft_zoo.registry.strategy import Strategy

GROUP = "neft_zoo.strategies"
# Located by path, since its modules import this one.
FOLDER = Path(__file__).parents[1] / "strategies"


@dataclass(frozen=True)
class Entry:
    """A registered function with its paper and version."""

    build: Callable[..., Strategy]
    paper: str | None
    version: int

    @property
    def name(self) -> str:
        return self.build.__name__

    @property
    def summary(self) -> str:
        return inspect.cleandoc(self.build.__doc__ or "").split("\n\n")[0].replace("\n", " ")

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.build).parameters

    def hints(self) -> dict[str, object]:
        """Return the type of every argument."""
        return typing.get_type_hints(self.build)


_entries: dict[str, Entry] = {}


def register(*, paper: str | None, version: int) -> Callable[[Callable[..., Strategy]], Callable[..., Strategy]]:
    """Register a function that returns a `Strategy` as an entry, under the function's name.

    Args:
        paper: URL of the paper that introduced the method, or None.
        version: increased whenever the entry's results change, so that old results remain identifiable.
    """

    def decorate(build: Callable[..., Strategy]) -> Callable[..., Strategy]:
        earlier = _entries.get(build.__name__)
        if earlier is not None and earlier.build.__module__ != build.__module__:
            raise NoiseError(f"strategy {build.__name__!r} is registered already, by {earlier.build.__module__}.")
        _entries[build.__name__] = Entry(build, paper, version)
        return build

    return decorate


def names() -> list[str]:
    """Return the names of all entries, built-in and third-party, in alphabetical order."""
    return sorted({*builtin_names(), *_third_party(), *_entries})


def builtin_names() -> list[str]:
    """Return the names of the built-in entries."""
    return list(_files())


@cache
def _files() -> tuple[str, ...]:
    """Return the names of the modules in the folder, cached because `list` asks for every entry."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules([str(FOLDER)])))


def entry(name: str) -> Entry:
    """Return an entry by name.

    Raises:
        NoiseError: if there is none; the message suggests a similar name.
    """
    if name not in _entries:
        if name in builtin_names():
            importlib.import_module(f"neft_zoo.strategies.{name}")
        elif name in _third_party():
            _load(_third_party()[name])
        else:
            hint = did_you_mean(name, names())
            raise NoiseError(f"noise must name a strategy (neft-zoo list), got {shown(name)}{hint}")
    return _entries[name]


def make(noise: str | Mapping[str, object] | Strategy, /, **arguments: object) -> Strategy:
    """Return the strategy for a value of `noise=`.

    Args:
        noise: a name, a mapping with `name` and arguments, or a strategy, which is returned unchanged.
        **arguments: arguments of the entry.

    Raises:
        NoiseError: for an unknown name or argument, or a value that an argument does not accept.

    Example:
        >>> make("neft_uniform", alpha=10).arguments["alpha"]
        10.0
    """
    if isinstance(noise, Strategy):
        if arguments:
            raise NoiseError(f"a Strategy takes no further arguments, got {', '.join(arguments)}.")
        return noise
    if isinstance(noise, Mapping):
        given = dict(noise)
        name = given.pop("name", None)
        arguments = {**given, **arguments}
    else:
        name = noise
    if not isinstance(name, str):
        raise NoiseError(f"noise must be a name, a mapping with a name, or a Strategy, got {shown(noise)}.")
    registered = entry(name)
    values = _read_arguments(registered, arguments)
    try:
        strategy = registered.build(**values)
    except NoiseError as error:
        raise NoiseError(f"{name}: {error}") from None
    return replace(strategy, name=name, arguments=values, version=registered.version)


def _read_arguments(registered: Entry, given: Mapping[str, object]) -> dict[str, object]:
    """Return all arguments of an entry, converted to their declared types, with defaults filled in."""
    unknown = [key for key in given if key not in registered.parameters]
    if unknown:
        accepted = ", ".join(registered.parameters) or "no arguments"
        hint = did_you_mean(str(unknown[0]), registered.parameters)
        raise NoiseError(f"{registered.name} takes {accepted}, got {shown(unknown[0])}{hint}")
    hints, values = registered.hints(), {}
    for name, parameter in registered.parameters.items():
        if name not in given and parameter.default is parameter.empty:
            raise NoiseError(f"{registered.name} needs the argument {name}.")
        values[name] = _read(f"{registered.name}: {name}", given.get(name, parameter.default), hints[name])
    return values


def _read(name: str, value: object, hint: object) -> object:
    """Return `value` converted to the type `hint`, or raise."""
    if hint == Scalar:
        return parse_scalar(name, value)
    if hint is float:
        return parse_number(name, value)
    if hint == Layers:
        return tuple(value) if isinstance(value, list) else value  # the noise checks the values itself
    if typing.get_origin(hint) is Literal:
        accepted = typing.get_args(hint)
        if not any(value == choice and type(value) is type(choice) for choice in accepted):
            raise NoiseError(f"{name} must be one of {', '.join(map(repr, accepted))}, got {shown(value)}.")
        return value
    if type(value) is not hint or (isinstance(value, int) and value.bit_length() > 63):
        raise NoiseError(f"{name} must be {_ARTICLES.get(hint, hint)}, got {shown(value)}.")
    return value


_ARTICLES: dict[object, str] = {bool: "true or false", int: "a whole number", str: "a string"}


def _third_party() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _load(point: EntryPoint) -> None:
    """Import a third-party entry, which registers itself."""
    try:
        point.load()
    except Exception as error:
        raise NoiseError(f"strategy {point.name!r} of {point.value} cannot be imported: {error!r}.") from error
    if point.name not in _entries:
        raise NoiseError(f"strategy {point.name!r} of {point.value} must be a @register'ed function of that name.")
