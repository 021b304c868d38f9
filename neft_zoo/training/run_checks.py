"""RunChecks: what is checked while a trainer with noise trains."""

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
    """A trainer with a strategy, and what of it is looked at."""

    strategy: Strategy
    accelerator: Any
    callback_handler: Any

    def current_session(self) -> NoiseSession:
        """Return the session of the model that the trainer has now."""
        ...


class RunChecks(TrainerCallback):
    """Checks a run when it begins, and that no optimizer step is taken without the strategy.

    Args:
        trainer: whose run it is.
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
        """Raise where a trial of a hyperparameter search has changed `args.noise`, or a callback brings another noise.

        The strategy was made with the trainer, before the search.

        Raises:
            NoiseError: if it has.
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
        """Raise after a training loop that announces nothing, and so trained without the strategy.

        Args:
            steps: that it says it has taken.

        Raises:
            NoiseError: if it took any.
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
        """Set the hooks, and let them see calls of the model that do not come to our `compute_loss`."""
        session, processes = self._session, self.trainer.accelerator.state
        self._mark = session.progress_mark
        watch(session, **step_of(args, processes, state))
        if session.hooks is not None and steps_in_backward(processes):
            session.hooks.at_gradients(self._check_gradient)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Raise before the optimizer takes a step that did not go through the strategy.

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
        """Check the same in training loops of their own, which do not announce the optimizer's step."""
        unwatch(self._session)
        check_went_through(self._session, self._mark, f"{type(self.trainer).__name__}.train")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Remove the hooks, where the trainer was given noise after its `train` had begun."""
        self._session.detach()
