"""What a trainer counts and logs in every pass."""

from __future__ import annotations

from typing import Any


class PassCounters:
    """What a trainer counts and logs in `compute_loss`, so that a step of several passes counts as one."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.tokens = vars(trainer).get("_total_train_tokens")
        self.metrics = vars(trainer).get("_metrics", {}).get("train", {})
        self.lengths = {name: len(values) for name, values in self.metrics.items()}

    def rewind(self) -> None:
        """Forget what the previous pass of this step counted."""
        if self.tokens is not None:
            self.trainer._total_train_tokens = self.tokens
        for name, values in self.metrics.items():
            del values[self.lengths.get(name, 0) :]
