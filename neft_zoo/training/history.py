"""RunHistory: what a run has done with its strategy up to now."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class RunHistory:
    """What a run has done with its strategy up to now, whichever model it goes on with.

    Attributes:
        happened: whether a model was trained as the strategy says.
        starts: whether the run starts from this model, and not from a checkpoint.
        steps: how many steps went through the strategy.
        passed_by: whether the host's loss is known to pass by the strategy.
        warned: whether it was said that a model in eval mode gets no noise.
    """

    happened: bool
    starts: bool = False
    steps: int = 0
    passed_by: bool = False
    warned: bool = False

    def count_step(self) -> None:
        """Count a step that went through the strategy."""
        self.steps += 1
        self.happened = True
