"""NoiseSession: a strategy on a model, independent of what trains or evaluates it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from neft_zoo.noise.additive import AtPlaceholders, Noise, TokenEdit
from neft_zoo.noise.batch import Batch
from neft_zoo.noise.cutoff import HideTokens
from neft_zoo.passes.accumulation import Accumulation
from neft_zoo.passes.anatomy import base_model, find_table
from neft_zoo.passes.hooks import ModelHooks
from neft_zoo.passes.preparation import prepare
from neft_zoo.passes.records import Pass
from neft_zoo.passes.special_tokens import check_placeholders
from neft_zoo.passes.step import Step
from neft_zoo.passes.torch_internals import forget_graphs, unwrapped
from neft_zoo.registry.strategy import Strategy
from neft_zoo.training.batch_reader import BatchReader, must_be_read
from neft_zoo.training.history import RunHistory
from neft_zoo.training.noise_stats import NoiseStats
from neft_zoo.training.own_loss import Compute, Inputs, ModelInputs, OwnLoss, copy_of
from neft_zoo.training.token_counts import Counts, TokenCounts

if TYPE_CHECKING:
    from jaxtyping import Int


class NoiseSession:
    """The checks, hooks, prepared noise, special tokens and statistics of one strategy on one model.

    Special tokens are always the tokenizer's, and placeholders those of the model's config. A strategy that adds
    nothing to a pass sets no hooks. Hooks are set after all checks, so a refused model has none.

    Args:
        model: a transformers or PEFT model, possibly wrapped by DDP, FSDP, DeepSpeed or torch.compile.
        strategy: what is added and how a step uses its passes.
        tokenizer: tokenizer or processor; None for no special tokens.
        token_counts: count of each token in the training data, or a function that counts them if needed.
        reference: also add the noise in passes without gradients, and to these models; None for neither.
        compiled: draw the noise before a pass, for a compiled model.

    Raises:
        NoiseError: if the model or the counts lack what the strategy needs.
    """

    def __init__(
        self,
        model: nn.Module,
        strategy: Strategy,
        *,
        tokenizer: object = None,
        token_counts: Counts | None = None,
        reference: Sequence[nn.Module | None] | None = None,
        compiled: bool = False,
    ) -> None:
        self.model, self.strategy, self.tokenizer = model, strategy, tokenizer
        self.bare_model = unwrapped(model)
        self.reference, self.compiled = reference, compiled
        self.batch = BatchReader(self.bare_model, tokenizer)
        self.counts = token_counts if isinstance(token_counts, TokenCounts) else TokenCounts(token_counts)
        self.stats = NoiseStats(strategy)
        self.noise: Noise | TokenEdit | None = None
        self.hooks: ModelHooks | None = None
        self.history = RunHistory(happened=strategy.clean and strategy.weights is None)
        self.running = False
        # A look at token ids would break the graph of a compiled model.
        self._reads = not compiled
        self._last: Accumulation | None = None
        if strategy.weights is not None:
            strategy.weights.check(self.bare_model)
        if isinstance(strategy.noise, AtPlaceholders):
            check_placeholders(base_model(self.bare_model), self.batch.tokens["media_ids"])
        if isinstance(strategy.noise, HideTokens):
            strategy.noise.check(self.batch.tokens["fill_id"], len(find_table(self.bare_model)))
        if not strategy.clean:
            strategy.objective.check(self.bare_model)
            self._prepare()
            self.attach()

    @property
    def active(self) -> bool:
        """True if the strategy changes a loss now: in train mode with gradients, and not within another such loss."""
        training = not self.strategy.clean and self.model.training and torch.is_grad_enabled()
        return training and not self.running

    @property
    def progress_mark(self) -> tuple[int, int]:
        """The number of steps with the strategy so far, and of model calls with gradients but without it."""
        return self.history.steps, 0 if self.hooks is None else self.hooks.clean_calls

    def on(self, model: nn.Module) -> NoiseSession:
        """Return a session with the same strategy and settings on another model, and detach this one."""
        self.detach()
        session = NoiseSession(
            model,
            self.strategy,
            tokenizer=self.tokenizer,
            token_counts=self.counts,
            reference=self.reference,
            compiled=self.compiled,
        )
        session.stats, session.history = self.stats, self.history
        return session

    def attach(self) -> None:
        """Set the hooks, unless they are set or the strategy needs none; anew around an embedding that was wrapped."""
        if self.hooks is not None and self.hooks.are_inside_of_embedding:
            self.detach()
            self._prepare()
        if self.hooks is not None or self.strategy.clean:
            return
        forget_graphs(self.model)
        self.hooks = ModelHooks(
            self.bare_model,
            layers=self.strategy.layers,
            hidden=self.strategy.objective.hidden,
            read=self.batch.of_call if self._reads else None,
            repeats=self.strategy.name if self.strategy.objective.passes > 1 else None,
            reference=self.reference,
            compiled=self.compiled,
        )

    def detach(self) -> None:
        """Remove the hooks; the model is then unchanged."""
        if self.hooks is not None:
            self.hooks.detach()
        self.hooks = self._last = None

    def use_counts(self, counts: Int[Tensor, " V"]) -> None:
        """Prepare the noise again for other token counts, such as those of the resumed run."""
        self.counts = TokenCounts(counts)
        self._prepare()

    def loss(self, inputs: Inputs, compute: Compute, *, key: int, progress: float = 0.0, **scale: Any) -> Tensor:
        """Return the loss of one batch under the strategy, or the clean loss if the session is not active.

        Args:
            inputs: arguments for `compute`, in any container, copied for every pass because TRL writes into them.
            compute: the host's own loss of one pass.
            key: random key of the optimizer step.
            progress: fraction of training done, in [0, 1].
            scale: how the host scales and differentiates its loss, as fields of `Step`.
        """
        if not self.active:
            return compute(copy_of(inputs))
        return self.run(self.step(inputs, compute, key=key, progress=progress, **scale))

    def reads(self, inputs: Inputs) -> bool:
        """Return whether the batch must be read from the model's own calls, as the loss builds its inputs itself.

        Raises:
            NoiseError: if there are no token ids that the noise could edit.
        """
        edits = isinstance(self.noise, TokenEdit)
        return must_be_read(inputs, edited_by=self.strategy.name if edits else None)

    def step(self, inputs: Inputs, compute: Compute, *, key: int, progress: float = 0.0, **scale: Any) -> Step:
        """Return the step of one batch, before any pass; arguments as in `loss`."""
        self.attach()
        assert self.hooks is not None  # set just now
        if self._last is not None:
            self._last.check()
        batch, reads = None, self.reads(inputs)
        self.batch.enter_step(key, progress, inputs.get("labels") if isinstance(inputs, Mapping) else None)
        if not reads:
            batch = self.batch(inputs, key, progress)
        elif not self._reads:
            self._reads = True
            self.detach()
            self.attach()

        repeats = self.strategy.name if self.strategy.objective.passes > 1 else None
        step = Step(self.hooks, batch, OwnLoss(compute, inputs, self.bare_model, repeats), **scale)
        self._last = step.accumulation
        return step

    def run(self, step: Step) -> Tensor:
        """Return the loss of a step under the strategy, and record its statistics."""
        self.running = True
        try:
            loss = self.strategy.objective(step, self.noise)
        finally:
            self.running = False
        self.record(step)
        return loss

    def record(self, step: Step) -> None:
        """Count a step after its passes, and record its statistics."""
        self.stats.record(step)
        self.history.count_step()

    @contextmanager
    def open(self, batch: Batch) -> Iterator[Pass]:
        """Open a forward pass with noise on embeddings or layers, and yield its record.

        Without gradients, noise is added only if the session has a `reference`.
        """
        if self.hooks is None or isinstance(self.noise, TokenEdit):
            yield Pass(batch=batch)
        else:
            with self.hooks.open(self.noise, batch) as record:
                yield record

    @contextmanager
    def noisy_pass(self, inputs: Inputs, key: int, progress: float = 0.0) -> Iterator[ModelInputs]:
        """Open a forward pass with noise, and yield its inputs, with edited token ids if the noise edits them."""
        batch = self.batch(inputs, key, progress)
        edited = {"input_ids": self.noise.edit(batch)} if isinstance(self.noise, TokenEdit) else {}
        with self.open(batch):
            yield {**inputs, **edited}

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Return clean losses inside this context."""
        was, self.running = self.running, True
        try:
            yield
        finally:
            self.running = was

    def _prepare(self) -> None:
        counts = self.counts if self.counts.can_be_known else None
        self.noise = prepare(self.strategy.noise, self.bare_model, counts)
