"""WHEN: schedules, which can replace any number of a strategy by a function of training progress in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Protocol, TypeAlias, runtime_checkable

from neft_zoo.errors import NoiseError, shown


@runtime_checkable
class Schedule(Protocol):
    """A value that changes during training.

    Progress is a fraction, never a step count, so that a recipe keeps its meaning when training gets longer.
    """

    def __call__(self, progress: float) -> float: ...


Scalar: TypeAlias = float | Schedule


@dataclass(frozen=True)
class Linear:
    """A straight line from `start` at the first step to `end` at the last."""

    start: float
    end: float

    def __call__(self, progress: float) -> float:
        return self.start + (self.end - self.start) * progress


@dataclass(frozen=True)
class Cosine:
    """Half a cosine wave from `start` to `end`: flat at both ends."""

    start: float
    end: float

    def __call__(self, progress: float) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class WarmUp:
    """Linear from 0 to `value` over the first `fraction` of training, then constant."""

    value: float
    fraction: float = 0.1

    def __post_init__(self) -> None:
        check_number("fraction", self.fraction, 0, 1)

    def __call__(self, progress: float) -> float:
        return self.value if progress >= self.fraction else self.value * progress / self.fraction


@dataclass(frozen=True)
class Window:
    """`value` while begin <= progress < end (and at the last step if end is 1), 0 outside."""

    value: float
    begin: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        check_number("begin", self.begin, 0, 1)
        check_number("end", self.end, self.begin, 1)
        if self.end == self.begin:
            raise NoiseError(f"end must be above begin, {self.begin:g}, for any step to be inside, got {self.end:g}.")

    def __call__(self, progress: float) -> float:
        inside = self.begin <= progress < self.end or self.end == progress == 1
        return self.value if inside else 0.0


SCHEDULES = {kind.__name__.lower(): kind for kind in (Linear, Cosine, WarmUp, Window)}


def value_at(value: Scalar, progress: float) -> float:
    """Return the number itself, or a schedule's value at `progress` (fraction of training)."""
    return value(progress) if isinstance(value, Schedule) else value


def parse_scalar(name: str, value: object) -> Scalar:
    """Read a number, or a mapping such as `{"schedule": "linear", "start": 10, "end": 0}`.

    Raises:
        NoiseError: if `value` is neither, or if the schedule is unknown or has wrong arguments.
    """
    if isinstance(value, Schedule):
        return value
    if isinstance(value, Mapping):
        return _parse_schedule(name, dict(value))
    return parse_number(name, value, "a number or a schedule")


def parse_number(name: str, value: object, accepted: str = "a number") -> float:
    """Read a finite number; numeric strings are accepted, since YAML reads `5e0` as a string."""
    try:
        number = math.nan if isinstance(value, bool | bytes) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise NoiseError(f"{name} must be {accepted}, got {shown(value)}.")
    return number


def _parse_schedule(name: str, mapping: dict[str, object]) -> Schedule:
    kind = mapping.pop("schedule", None)
    if not isinstance(kind, str) or kind not in SCHEDULES:
        raise NoiseError(f"{name}: schedule must be one of {', '.join(SCHEDULES)}, got {shown(kind)}.")
    accepted = [field.name for field in fields(SCHEDULES[kind])]
    unknown = [key for key in mapping if key not in accepted]
    if unknown:
        raise NoiseError(f"{name}: schedule {kind} takes {', '.join(accepted)}, got {shown(unknown[0])}.")
    numbers = {key: parse_number(f"{name}: {key}", value) for key, value in mapping.items()}
    try:
        return SCHEDULES[kind](**numbers)
    except TypeError:
        raise NoiseError(f"{name}: schedule {kind} needs {', '.join(accepted)}, got {sorted(mapping)}.") from None


def schedule_to_dict(value: Schedule) -> dict[str, object]:
    """Return the mapping that `parse_scalar` reads back.

    Raises:
        NoiseError: if the schedule is a custom function, which cannot be saved.
    """
    if type(value) not in SCHEDULES.values():
        raise NoiseError(f"a schedule can be saved if it is one of {', '.join(SCHEDULES)}, got {value!r}.")
    return {"schedule": type(value).__name__.lower(), **asdict(value)}  # type: ignore[call-overload]


def check_number(name: str, value: float, low: float = 0.0, high: float = math.inf) -> None:
    """Raise unless value is finite and low <= value <= high."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        bounds = f"a finite number >= {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        raise NoiseError(f"{name} must be {bounds}, got {shown(value)}.")


def check_count(name: str, value: int, low: int = 0) -> None:
    """Raise unless value is a whole number >= low."""
    if type(value) is not int or value < low:
        raise NoiseError(f"{name} must be a whole number >= {low}, got {value!r}.")


def check_scalar(name: str, value: Scalar, low: float = 0.0, high: float = math.inf) -> None:
    """Raise unless a number, or a schedule at its edges and at eleven points of training, is from `low` to `high`."""
    if isinstance(value, Schedule):
        edge = value.begin if isinstance(value, Window) else 0.0
        for progress in sorted({edge, *(tenth / 10 for tenth in range(11))}):
            check_number(f"{name} at progress {progress:g}", value(progress), low, high)
    else:
        check_number(name, value, low, high)
