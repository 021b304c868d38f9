"""What a run sends while it trains: its evaluations, how far it is, and what it warns of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast


@dataclass(frozen=True)
class Measurement:
    """The metrics of one evaluation.

    Attributes:
        step: optimizer steps that were done.
        epoch: passes over the training records, with a fraction.
        metrics: values by name; None where a value was not finite.
    """

    step: int
    epoch: float
    metrics: dict[str, float | None]

    def to_dict(self) -> dict[str, object]:
        return {"step": self.step, "epoch": self.epoch, **self.metrics}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Measurement:
        metrics = {name: value for name, value in values.items() if name not in ("step", "epoch")}
        return cls(cast(int, values["step"]), cast(float, values["epoch"]), cast("dict[str, float | None]", metrics))

    def __getitem__(self, name: str) -> float:
        """Return a metric that was measured and is finite.

        Raises:
            KeyError: if it was not.
        """
        value = self.metrics[name]
        if value is None:
            raise KeyError(name)
        return value


@dataclass(frozen=True)
class Steps:
    """How far a run is.

    Attributes:
        done: optimizer steps that were taken.
        total: of the whole run.
    """

    done: int
    total: int


@dataclass(frozen=True)
class Warned:
    """A warning of a run.

    Attributes:
        text: what it says.
        of_data: whether it is about the data, which all runs of a recipe share.
    """

    text: str
    of_data: bool
