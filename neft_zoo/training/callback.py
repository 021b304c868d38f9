"""NoiseCallback: what a trainer with noise looks at while it trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import TrainerCallback

from neft_zoo.errors import NoiseError
from neft_zoo.registry.entries import make

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from neft_zoo.registry.strategy import Strategy


class NoiseCallback(TrainerCallback):
    """Checks a run when it begins.

    Args:
        strategy: of the trainer.
    """

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Raise where a trial of a hyperparameter search has changed `args.noise`.

        The strategy was made with the trainer, before the search.

        Raises:
            NoiseError: if it has.
        """
        configured = getattr(args, "noise", None)
        if configured is not None and make(configured) != self.strategy:
            raise NoiseError(
                f"hp_space must leave noise as the trainer was made with, {self.strategy.name!r}, got {configured!r}; "
                "make a trainer for each noise."
            )
