"""Noise on the weights: once before training, or around every step."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import nn


class WeightNoise(Protocol):
    """What is done to the weights of a model."""

    def begin(self, model: nn.Module, key: int) -> None:
        """Change the weights once, before the first step of a run; never on resume."""

    def around(self, model: nn.Module, key: int, progress: float) -> AbstractContextManager[None]:
        """Change the weights for one forward and backward pass and restore them bit for bit."""
        ...
