"""RunHistory: what a run has done with its strategy so far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class RunHistory:
    """What a run has done with its strategy so far, even if its model was replaced.

    Attributes:
        happened: whether a model was trained with the strategy.
        starts: whether the run starts from this model rather than from a checkpoint.
        steps: number of steps with the strategy.
        passed_by: whether the host's loss is known to bypass the strategy.
        divides: whether the host's loss divides by the step's token count; None if that is not known.
        warned: whether the warning about a model in eval mode was given.
    """

    happened: bool
    starts: bool = False
    steps: int = 0
    passed_by: bool = False
    divides: bool | None = None
    warned: bool = False

    def count_step(self) -> None:
        """Count a step with the strategy."""
        self.steps += 1
        self.happened = True
