"""NoiseMixin: `noise=` for any `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from neft_zoo.errors import NoiseError
from neft_zoo.noise.batch import step_key
from neft_zoo.passes.anatomy import find_table
from neft_zoo.registry.entries import make
from neft_zoo.registry.strategy import Strategy
from neft_zoo.training.checks import check_calls, check_engine
from neft_zoo.training.engine_internals import is_compiled
from neft_zoo.training.hf_internals import runs_reference
from neft_zoo.training.outermost_loss import outermost_loss
from neft_zoo.training.progress import progress_of
from neft_zoo.training.provenance import check_run, tag_model_card, write
from neft_zoo.training.run_checks import RunChecks
from neft_zoo.training.session import ModelInputs, NoiseSession
from neft_zoo.training.step_checks import check_went_through
from neft_zoo.training.stock_noise import take_stock_noise
from neft_zoo.training.strategy_loss import strategy_loss
from neft_zoo.training.token_counts import count_tokens, load_counts, save_counts
from neft_zoo.training.token_losses import check_used
from neft_zoo.training.vocabulary import check_vocabulary, named_token_ids

if TYPE_CHECKING:
    from jaxtyping import Int
    from transformers import Trainer as Host
    from transformers.trainer_utils import TrainOutput
else:
    Host = object


class NoiseMixin(Host):
    """Runs the trainer's own loss under a strategy: one or several passes, with noise on the token embeddings.

    Put it before a trainer class: `class MyTrainer(NoiseMixin, Trainer)`.

    Args:
        noise: a strategy's name, a mapping with `name` and arguments, or a `Strategy`; None reads `args.noise` if the
            arguments have such a field, and means no noise otherwise.
        token_counts: count of each token in the training data (V,), for `token_frequency`; None counts them.
        reference: what the reference model of DPO and KTO sees: `clean`, the default, or the `same` draw as the
            policy.

    Raises:
        NoiseError: before training, if `noise` is invalid, or is given together with `neftune_noise_alpha` (which
            alone is run as `neft_uniform`).
    """

    # True if `compute_loss` also runs the reference model, which can then share the policy's draw. TRL's are known.
    runs_reference: ClassVar[bool] = False

    def __init__(
        self,
        *args: Any,
        noise: str | Mapping[str, object] | Strategy | None = None,
        token_counts: Int[Tensor, " V"] | None = None,
        reference: Literal["clean", "same"] = "clean",
        **kwargs: Any,
    ) -> None:
        strategy = None if noise is None else make(noise)  # before a model is loaded, so that a typo costs no time
        super().__init__(*args, **kwargs)
        self.set_noise(strategy, token_counts=token_counts, reference=reference)

    def set_noise(
        self,
        strategy: Strategy | None,
        *,
        token_counts: Int[Tensor, " V"] | None = None,
        reference: Literal["clean", "same"] = "clean",
    ) -> None:
        """Set the strategy of an existing trainer; arguments as for the class.

        Raises:
            NoiseError: as for the class.
        """
        configured = getattr(self.args, "noise", None)
        if strategy is not None and configured is not None and make(configured) != strategy:
            raise NoiseError(f"noise is given twice: {strategy.name!r} as an argument and {configured!r} in args.")
        stock = take_stock_noise(self) if strategy is None and configured is None else None
        configured = stock or configured
        self.strategy = strategy or make(configured if configured is not None else "none")
        check_engine(self.args, self.accelerator.state, self.strategy, replaces_stock=stock is not None)
        check_calls(self, self.strategy, reference, self.runs_reference or runs_reference(self))
        check_used(self)
        data = {name: getattr(self, name, None) for name in ("train_dataset", "eval_dataset")}
        check_vocabulary(self._current_model(), self._noise_tokenizer(), data)
        self.session = NoiseSession(
            self._current_model(),
            self.strategy,
            tokenizer=self._noise_tokenizer(),
            token_counts=self._count_tokens if token_counts is None else token_counts,
            reference=[getattr(self, "ref_model", None)] if reference == "same" else None,
            compiled=is_compiled(self.accelerator.state),
        )
        self.session.detach()  # until training begins
        self._run_checks = RunChecks(self)
        self.add_callback(self._run_checks)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        resumed = check_run(Path(str(self.args.output_dir)), resume_from_checkpoint, self.strategy)
        self._resume_counts(resumed)
        history = self.session.history
        history.starts, history.happened = resumed is None, resumed is not None or history.happened
        if self.model_init is None:
            self._change_weights_once(self._current_model())
        try:
            # By path: transformers' own search takes the newest folder, which a killed run may have left incomplete.
            done = super().train(None if resumed is None else str(resumed), *args, **kwargs)
            self._run_checks.check_trained(getattr(done, "global_step", 0))
            return done
        finally:
            history.starts = False
            self.session.detach()

    def _noise_tokenizer(self) -> Any:
        """Return the trainer's tokenizer or processor, or its collator's; None if neither has one."""
        return self.processing_class or getattr(self.data_collator, "tokenizer", None)

    def call_model_init(self, *args: Any, **kwargs: Any) -> nn.Module:
        model = super().call_model_init(*args, **kwargs)
        if hasattr(self, "session"):  # not set while transformers' __init__ creates a first model
            if self.strategy.weights is not None:
                self.strategy.weights.check(model)  # mixout notes what a resumed run began with too
            self._change_weights_once(model)
        return model

    def training_step(self, model: nn.Module, inputs: ModelInputs, *args: Any, **kwargs: Any) -> Tensor:
        """Run the trainer's own step under the strategy.

        Raises:
            NoiseError: if its loss bypassed the strategy.
        """
        session = self.current_session()
        session.attach()
        before, under_strategy = session.progress_mark, partial(strategy_loss, self, session)
        outermost = outermost_loss(self, NoiseMixin.compute_loss, under_strategy)
        with self._perturbed_weights(), outermost, named_token_ids(model, inputs, self._noise_tokenizer()):
            loss = super().training_step(model, inputs, *args, **kwargs)
        check_went_through(session, before, f"{type(self).__name__}.training_step")
        return loss

    @contextmanager
    def _perturbed_weights(self) -> Iterator[None]:
        if self.strategy.weights is None:
            yield
            return
        # Every rank must train the same perturbed weights, so the key excludes the rank.
        key = step_key(self.args.seed, 0, self.state.global_step)
        with self.strategy.weights.around(self._current_model(), key, progress_of(self.state)):
            yield
        self.session.history.count_step()

    def compute_loss(self, model: nn.Module, inputs: ModelInputs, *args: Any, **kwargs: Any) -> Any:
        """Return the loss under the strategy.

        Arguments are passed on unchanged, by position or keyword, since trainers differ in which they name.
        """
        return strategy_loss(self, self.current_session(), super().compute_loss, model, inputs, *args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            means = self.session.stats.take(warn=self.is_world_process_zero())
            logs |= {f"noise/{name}": mean for name, mean in means.items()}
        super().log(logs, *args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        super().save_model(output_dir, _internal_call)
        if self.args.should_save and self.session.history.happened:
            folder = Path(output_dir or str(self.args.output_dir))
            write(folder, self.strategy)
            if self.session.counts.known is not None:
                save_counts(folder, self.session.counts.known)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        super().create_model_card(*args, **kwargs)
        if self.is_world_process_zero() and self.session.history.happened:
            tag_model_card(Path(str(self.args.output_dir)) / "README.md", self.strategy)

    def current_session(self) -> NoiseSession:
        """Return the session of the current model; `model_init` and some engines replace the model inside `train`."""
        if self.session.model is not self.model and not self.strategy.clean:
            self.session = self.session.on(self._current_model())
        return self.session

    def _current_model(self) -> nn.Module:
        assert self.model is not None  # None only in transformers' annotations
        return self.model

    def _change_weights_once(self, model: nn.Module) -> None:
        """Change the weights that a run starts from, if the strategy does so."""
        if self.session.history.starts and self.strategy.weights is not None:
            self.strategy.weights.begin(model, step_key(self.args.seed, 0, 0))
            self.session.history.happened = True

    def _count_tokens(self) -> Int[Tensor, " V"]:
        return count_tokens(self.train_dataset, len(find_table(self._current_model())))

    def _resume_counts(self, checkpoint: Path | None) -> None:
        """Restore the token counts of the resumed run, in case its data has changed."""
        saved, counts = None if checkpoint is None else load_counts(checkpoint), self.session.counts.known
        if saved is not None and counts is not None and not torch.equal(saved, counts.cpu()):
            self.session.use_counts(saved)
