"""NoiseCallback: noise for programs that only accept callbacks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.state import AcceleratorState
from torch import nn
from transformers import TrainerCallback

from neft_zoo.errors import NoiseError
from neft_zoo.noise.batch import step_key
from neft_zoo.registry.entries import make
from neft_zoo.registry.strategy import Strategy
from neft_zoo.training.checks import check_engine
from neft_zoo.training.engine_internals import is_compiled, steps_in_backward
from neft_zoo.training.progress import step_of
from neft_zoo.training.provenance import check_run, tag_model_card, write
from neft_zoo.training.session import NoiseSession
from neft_zoo.training.step_checks import Gradients, gradients_of, passed_by_since
from neft_zoo.training.token_counts import save_counts
from neft_zoo.training.vocabulary import check_vocabulary
from neft_zoo.training.watched_calls import several_passes, unwatch, watch

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor
    from transformers import TrainerControl, TrainerState, TrainingArguments


class NoiseCallback(TrainerCallback):
    """Adds noise in any `transformers.Trainer` through the callback interface alone.

    Noise is added in every model call in train mode with gradients, from the beginning of a step to its end, on the
    batch of that call. Prefer `enable` if you can access the trainer: it runs every strategy, leaves no hook after an
    exception, and logs to every tracker, while trackers that precede a callback do not see what it logs.

    Args:
        noise: name of a strategy of one pass, a mapping with `name` and arguments, or a `Strategy`.
        token_counts: how often each token occurs in the training data (V,), for `token_frequency`.

    Raises:
        NoiseError: if the noise is not accepted, or needs more than one pass of the trainer's own loss.

    Example:
        >>> Trainer(model, args, callbacks=[NoiseCallback("neft_uniform")]).train()  # doctest: +SKIP
    """

    def __init__(
        self, noise: str | Mapping[str, object] | Strategy, *, token_counts: Int[Tensor, " V"] | None = None
    ) -> None:
        self.strategy, self.token_counts = make(noise), token_counts
        changes_steps = self.strategy.weights is not None and self.strategy.weights.every_step
        if several_passes(self.strategy) or changes_steps:
            raise NoiseError(
                "a callback adds noise to the one pass that a trainer runs, which is not all that "
                f"{self.strategy.name!r} does: give the trainer to enable(trainer, {self.strategy.name!r}) instead."
            )
        self.session: NoiseSession | None = None
        self._mark = (0, 0)

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check arguments and model when the trainer is created.

        Raises:
            NoiseError: if the noise is not compatible with them.
        """
        if kwargs.get("model") is None:  # `model_init` makes one later
            check_engine(args, AcceleratorState(), self.strategy)
        else:
            self._set_session(args, kwargs)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Attach the noise, after checking that the run does not continue another strategy's.

        Raises:
            NoiseError: if the run would continue or overwrite a run of another strategy.
        """
        session, output_dir = self._set_session(args, kwargs), Path(str(args.output_dir))
        resumed = output_dir / f"checkpoint-{state.global_step}" if state.global_step else None
        check_run(output_dir, resumed if resumed is not None and resumed.is_dir() else None, self.strategy)
        data = getattr(kwargs.get("train_dataloader"), "dataset", None)
        check_vocabulary(session.bare_model, kwargs.get("processing_class"), {"train_dataset": data})
        session.attach()
        session.history.happened = session.history.happened or bool(state.global_step)
        if self.strategy.weights is not None and not state.global_step:
            self.strategy.weights.begin(session.bare_model, step_key(args.seed, 0, 0))
            session.history.happened = True

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Start adding noise to model calls."""
        session, processes = self._attached(), AcceleratorState()
        self._mark = session.progress_mark
        watch(session, **step_of(args, processes, state))
        if session.hooks is not None and steps_in_backward(processes):
            session.hooks.at_gradients(lambda gradient: self._check_step([gradient]))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Raise before the optimizer step if the model had no noise in this step.

        Raises:
            NoiseError: if no noise was added.
        """
        self._check_step(gradients_of(self._attached()))

    def _check_step(self, gradients: Gradients) -> None:
        if passed_by_since(self._attached(), self._mark, gradients):
            raise NoiseError(
                "the trainer must call the model with input_ids, in train mode, for a callback's noise of "
                f"{self.strategy.name} to reach it, got a step without: enable(trainer, noise) says why."
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Stop adding noise, for evaluation and generation."""
        unwatch(self._attached())

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Add `noise/rms`, `noise/snr_db` and the strategy's numbers to the logs."""
        if self.session is None or logs is None or "loss" not in logs:
            return
        means = self.session.stats.take(warn=state.is_world_process_zero)
        named = {f"noise/{name}": mean for name, mean in means.items()}
        logs.update(named)
        if state.log_history:  # the trainer has entered its line already
            state.log_history[-1].update(named)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Write `noise.json` into a checkpoint."""
        self._write(args, state, Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Remove the hooks, and write `noise.json` to where the model will be saved."""
        self._write(args, state, Path(str(args.output_dir)))
        if state.is_world_process_zero:
            tag_model_card(Path(str(args.output_dir)) / "README.md", self.strategy)
        self.detach()

    def detach(self) -> None:
        """Remove the hooks after an exception; the end of training also removes them."""
        if self.session is not None:
            self.session.detach()

    def _attached(self) -> NoiseSession:
        assert self.session is not None  # training has begun
        return self.session

    def _set_session(self, args: TrainingArguments, given: Mapping[str, Any]) -> NoiseSession:
        """Return a session for the trainer's current model, without hooks."""
        processes, model = AcceleratorState(), given["model"]
        check_engine(args, processes, self.strategy)
        self.detach()
        if self.session is None or self.session.model is not model:
            self.session = self._session_on(model, given.get("processing_class"), is_compiled(processes))
            self.session.detach()
        return self.session

    def _session_on(self, model: nn.Module, tokenizer: object, compiled: bool) -> NoiseSession:
        if compiled and not self.strategy.clean:
            raise NoiseError(
                "torch_compile must be off with a callback, which reads the batch from the model's own call, got on: "
                f"give the trainer to enable(trainer, {self.strategy.name!r}) instead."
            )
        return NoiseSession(model, self.strategy, tokenizer=tokenizer, token_counts=self.token_counts)

    def _write(self, args: TrainingArguments, state: TrainerState, folder: Path) -> None:
        if self.session is not None and self.session.history.happened and args.should_save:
            write(folder, self.strategy)
            if self.session.counts.known is not None:
                save_counts(folder, self.session.counts.known)
