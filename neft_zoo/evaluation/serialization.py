"""Dataclasses that can be read from JSON and written to it."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

R = TypeVar("R", bound="Serializable")


class Serializable:
    """Base class for a frozen dataclass with a JSON object whose keys are its fields, in order."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields as mappings, lists and numbers, ready for JSON."""
        return {name: _encoded(getattr(self, name)) for name in _names(self)}

    @classmethod
    def from_dict(cls: type[R], values: Mapping[str, object]) -> R:
        """Return an instance from a JSON object; unknown keys are ignored and missing ones take defaults.

        Raises:
            TypeError: if a field without a default is missing.
        """
        hints = get_type_hints(cls)
        return cls(**{key: _decoded(hints[key], value) for key, value in values.items() if key in hints})

    def __getitem__(self, name: str) -> Any:
        """Return a field by its JSON key, so that `report["losses"]` works for a report and for its file."""
        if name not in _names(self):
            raise KeyError(name)
        return getattr(self, name)


def _names(value: Serializable) -> list[str]:
    return [field.name for field in dataclasses.fields(value)]  # type: ignore[arg-type]


def _encoded(value: object) -> object:
    if isinstance(value, Serializable):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: _encoded(item) for key, item in value.items()}
    return [_encoded(item) for item in value] if isinstance(value, list | tuple) else value


def _decoded(hint: object, value: object) -> object:
    """Return a field's value, decoded from JSON to the type `hint`."""
    if get_origin(hint) in (Union, types.UnionType):
        if value is None:
            return None
        hint = next(option for option in get_args(hint) if option is not type(None))
    kind, arguments = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and issubclass(hint, Serializable) and isinstance(value, Mapping):
        return hint.from_dict(value)
    if isinstance(value, Mapping) and arguments:
        return {key: _decoded(arguments[1], item) for key, item in value.items()}
    if isinstance(value, list | tuple) and arguments:
        items = (_decoded(arguments[0], item) for item in value)
        return tuple(items) if kind is tuple else list(items)
    return value
