"""Messages that a run sends during training: its evaluations, its progress and its warnings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast


@dataclass(frozen=True)
class Measurement:
    """The metrics of one evaluation.

    Attributes:
        step: number of completed optimizer steps.
        epoch: passes over the training records, as a fraction.
        metrics: values by name; None if a value was not finite.
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
            KeyError: if it was not measured or is not finite.
        """
        value = self.metrics[name]
        if value is None:
            raise KeyError(name)
        return value


@dataclass(frozen=True)
class Steps:
    """The progress of a run.

    Attributes:
        done: completed optimizer steps.
        total: of the whole run.
    """

    done: int
    total: int


@dataclass(frozen=True)
class Warned:
    """A warning of a run.

    Attributes:
        text: its message.
        of_data: whether it concerns the data, which all runs of a recipe share.
    """

    text: str
    of_data: bool
