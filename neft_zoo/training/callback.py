"""NoiseCallback: what is checked while a trainer with noise trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from transformers import TrainerCallback

from neft_zoo.errors import NoiseError
from neft_zoo.registry.entries import make
from neft_zoo.training.session import NoiseSession

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


class NoiseCallback(TrainerCallback):
    """Checks a run when it begins, and that no optimizer step is taken without the strategy.

    Args:
        session: returns the trainer's current session.
        trainer: name of the trainer's class, for messages.
    """

    def __init__(self, session: Callable[[], NoiseSession], trainer: str) -> None:
        self.session, self.trainer = session, trainer
        self._mark = (0, 0)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Raise where a trial of a hyperparameter search has changed `args.noise`.

        The strategy was made with the trainer, before the search.

        Raises:
            NoiseError: if it has.
        """
        configured, strategy = getattr(args, "noise", None), self.session().strategy
        if configured is not None and make(configured) != strategy:
            raise NoiseError(
                f"hp_space must leave noise as the trainer was made with, {strategy.name!r}, got {configured!r}; "
                "make a trainer for each noise."
            )

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Set the hooks, for a trainer whose `training_step` is not ours."""
        self.session().attach()
        self._mark = self.session().progress_mark

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Raise before the optimizer takes a step that did not go through the strategy.

        Raises:
            NoiseError: if the model was called with gradients, but not under the strategy.
        """
        self.session().check_went_through(self._mark, f"{self.trainer}.training_step")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Check the same in training loops of their own, which do not announce the optimizer's step."""
        self.session().check_went_through(self._mark, f"{self.trainer}.train")
