"""RunChecks: checks during the training of a trainer with noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from transformers import TrainerCallback

from neft_zoo.errors import NoiseError
from neft_zoo.registry.entries import make
from neft_zoo.training.callback import NoiseCallback
from neft_zoo.training.engine_internals import steps_in_backward
from neft_zoo.training.progress import step_of
from neft_zoo.training.session import NoiseSession
from neft_zoo.training.step_checks import Gradients, check_went_through, gradients_of
from neft_zoo.training.watched_calls import unwatch, watch

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from neft_zoo.registry.strategy import Strategy


class NoisyTrainer(Protocol):
    """The attributes of a trainer with a strategy that are checked."""

    strategy: Strategy
    accelerator: Any
    callback_handler: Any

    def current_session(self) -> NoiseSession:
        """Return the session of the trainer's current model."""
        ...


class RunChecks(TrainerCallback):
    """Checks a run when it begins, and checks that no optimizer step bypasses the strategy.

    Args:
        trainer: the trainer of the run.
    """

    def __init__(self, trainer: NoisyTrainer) -> None:
        self.trainer, self._mark = trainer, (0, 0)
        self.began = False  # whether a training loop has announced itself

    @property
    def _session(self) -> NoiseSession:
        return self.trainer.current_session()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Raise if a hyperparameter search has changed `args.noise`, or if a callback adds another noise.

        The strategy was created with the trainer, before the search.

        Raises:
            NoiseError: if either is the case.
        """
        self.began = True
        other = next(
            (each for each in self.trainer.callback_handler.callbacks if isinstance(each, NoiseCallback)), None
        )
        if other is not None:
            other.detach()
            raise NoiseError(
                f"{type(self.trainer).__name__} must have one noise, got {self.trainer.strategy.name!r} and a "
                f"NoiseCallback of {other.strategy.name!r}: two noises would add up."
            )
        configured, strategy = getattr(args, "noise", None), self.trainer.strategy
        if configured is not None and make(configured) != strategy:
            raise NoiseError(
                f"hp_space must leave noise as the trainer was made with, {strategy.name!r}, got {configured!r}; "
                "make a trainer for each noise."
            )

    def check_trained(self, steps: int) -> None:
        """Raise after a training loop that called no callbacks, and so trained without the strategy.

        Args:
            steps: number of steps that the loop reports.

        Raises:
            NoiseError: if it is above 0.
        """
        strategy, name = self.trainer.strategy, type(self.trainer).__name__
        every_step = not strategy.clean or (strategy.weights is not None and strategy.weights.every_step)
        if steps and every_step and not self.began:
            raise NoiseError(
                f"{name}.train must call callbacks as transformers does, for the noise of {strategy.name} to reach "
                f"the model, got {steps} steps without."
            )

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Set the hooks, and make them read model calls that bypass our `compute_loss`."""
        session, processes = self._session, self.trainer.accelerator.state
        self._mark = session.progress_mark
        watch(session, **step_of(args, processes, state))
        if session.hooks is not None and steps_in_backward(processes):
            session.hooks.at_gradients(self._check_gradient)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Raise before the optimizer step if the step bypassed the strategy.

        Raises:
            NoiseError: if the model was called with gradients, but not under the strategy.
        """
        self._check_step(gradients_of(self._session))

    def _check_gradient(self, gradient: Tensor) -> None:
        if not self._session.running:
            self._check_step([gradient])

    def _check_step(self, gradients: Gradients) -> None:
        check_went_through(self._session, self._mark, f"{type(self.trainer).__name__}.training_step", gradients)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Repeat the check for custom training loops that do not announce the optimizer step."""
        unwatch(self._session)
        check_went_through(self._session, self._mark, f"{type(self.trainer).__name__}.train")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Remove the hooks, for a trainer that was given noise after its `train` had begun."""
        self._session.detach()
