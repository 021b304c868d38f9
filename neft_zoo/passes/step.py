"""Step: one batch as an objective sees it, independent of the trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from neft_zoo.errors import NoiseError
from neft_zoo.noise.additive import AtLayers, Noise, TokenEdit
from neft_zoo.noise.batch import Batch
from neft_zoo.passes.accumulation import Accumulation, KeptGraphs
from neft_zoo.passes.anatomy import base_model, find_embedding
from neft_zoo.passes.chunked_logits import cross_entropy, of_divergence
from neft_zoo.passes.divergences import Divergence
from neft_zoo.passes.hooks import ModelHooks
from neft_zoo.passes.predictions import Predictions
from neft_zoo.passes.random_state import RandomState
from neft_zoo.passes.records import FixedNoise, Pass

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


@dataclass
class Step:
    """The passes of one batch.

    Args:
        hooks: of the model.
        input_batch: the batch of the loss's inputs; None if the hooks read it from the model's calls.
        compute: returns the trainer's own loss of one pass, given token ids (if there is an input batch) and labels
            (if they replace the batch's).
        token_weight: factor that brings a sum over graded tokens to the trainer's loss scale; None for their mean.
        nll: whether the trainer's loss is exactly `token_weight` times the labels' negative log-likelihood.
        accumulation: how a part of the loss is differentiated before the other passes are run.
    """

    hooks: ModelHooks
    input_batch: Batch | None
    compute: Callable[..., Any]
    token_weight: Tensor | float | None = None
    nll: bool = False
    accumulation: Accumulation = field(default_factory=KeptGraphs)
    passes: list[Pass] = field(default_factory=list)
    _kept: list[Tensor] = field(default_factory=list)
    _random_state: RandomState | None = None
    _redrawn: bool = False  # dropout, in any pass

    def run(
        self,
        noise: Noise | TokenEdit | None,
        redraw_dropout: bool = False,
        labels: Int[Tensor, "B L"] | None = None,
    ) -> Pass:
        """Run one forward pass and return its record.

        Args:
            noise: the noise or token edit for this pass, or None.
            redraw_dropout: draw new dropout masks, instead of those that the passes of a step share.
            labels: targets that replace the batch's labels.
        """
        if redraw_dropout:
            self._redrawn = True
        else:
            self._same_dropout()
        ids = None if self.input_batch is None else self.input_batch.input_ids
        if isinstance(noise, TokenEdit):
            ids, noise = noise.edit(self.batch), None
        with self.hooks.open(noise, self.input_batch, ids) as record:
            record.loss = self.compute(ids) if labels is None else self.compute(ids, labels)
        self.add(record, noisy=noise is not None)
        return record

    def add(self, record: Pass, noisy: bool = True) -> None:
        """Record a pass.

        Args:
            record: the record of the pass.
            noisy: whether the pass had a noise.

        Raises:
            NoiseError: if the noise was not added anywhere in the model.
        """
        unseen = self.hooks.records_layers and not record.inputs
        if record.batch is None or unseen or (noisy and not record.deltas):
            raise NoiseError(self._reason(record))
        self.passes.append(record)

    def _reason(self, record: Pass) -> str:
        """Return why the noise of a pass was not added anywhere."""
        name = type(base_model(self.hooks.model)).__name__
        if record.without_gradients and not record.inputs:
            return (
                f"decoder layers must run with gradients on, got {name}, which runs them without: checkpointing must "
                "not be reentrant, nor the backward pass the model's own (Reformer)."
            )
        if find_embedding(self.hooks.model) is not self.hooks.embeddings[0]:
            return f"the token embedding of {name} must stay as it was when the noise was attached, got another one."
        if record.unmatched and record.batch is not None:
            got, wanted = record.unmatched[0], tuple(record.batch.input_ids.shape)
            if record.ids_given:  # XLNet transposes the ids, CPM-Ant prepends its own tokens
                return f"{name} must look up the token ids that it is called with, of shape {wanted}, got {got}."
            return (
                f"the loss must call {name} with token ids of the batch's shape {wanted}, which noise enters by, "
                f"got {got}."
            )
        return f"the loss must call the model with input_ids, which noise enters by, got none from {name}."

    @property
    def batch(self) -> Batch:
        """The batch of the last pass; before the first pass, that of the loss's inputs."""
        batch = self.passes[-1].batch if self.passes else self.input_batch
        assert batch is not None  # objectives that read calls use the batch only after a pass
        return batch

    def fixed(self, deltas: Mapping[int, Tensor], like: Noise | TokenEdit | None, sign: float = 1.0) -> Noise:
        """Return a noise that adds these deltas at the sites of `like`."""
        fixed = FixedNoise(deltas, sign)
        return replace(like, noise=fixed) if isinstance(like, AtLayers) else fixed

    def gradients(self, value: Tensor, deltas: Mapping[int, Tensor], share: float = 0.0) -> dict[int, Tensor]:
        """Return the gradient of `value` for each delta, and add `share * value` to the loss of the step."""
        leaves = list(deltas.values())
        if share:
            gradients = [gradient / share for gradient in self.count(share * value, leaves)]
        else:
            gradients = self.accumulation.gradient(value, leaves)
        return dict(zip(deltas, gradients, strict=True))

    def count(self, part: Tensor, leaves: Sequence[Tensor] = ()) -> Sequence[Tensor]:
        """Add a part to the step's loss, and return its gradient with respect to leaves."""
        kept, gradients = self.accumulation.part(part, leaves)
        self._kept.append(kept)
        return gradients

    def total(self, loss: Tensor) -> Tensor:
        """Return the loss of the step: the last part plus those added before."""
        return self.accumulation.total(sum(self._kept, start=loss))

    def divergence(
        self, name: Divergence, first: Pass, second: Pass, constant: bool = False, trains: bool = True
    ) -> Float[Tensor, ""]:
        """Return the divergence of two passes' predictions over the graded tokens, on the trainer's loss scale.

        Logits are compared directly if they are few enough to be kept. Otherwise the hidden states are projected
        through the LM head again, in chunks, so that no further tensor of all positions by the vocabulary is needed.

        Args:
            name: of the divergence.
            first, second: the passes, in the order of the divergence's arguments.
            constant: whether to detach the first pass, for the LM head too.
            trains: whether the LM head gets gradients, or only what comes before it.
        """
        function = partial(of_divergence, name, constant)
        return self._predictions.loss(function, [first, second], trains=trains)

    def with_divergence(
        self,
        losses: Mapping[int, float],
        weight: float,
        name: Divergence,
        first: Pass,
        second: Pass,
        constant: bool = False,
    ) -> Float[Tensor, ""]:
        """Return the weighted losses of two passes plus `weight` times their divergence.

        Args:
            losses: factors of the losses, keyed 0 for the first pass and 1 for the second; a missing one is not added.
            weight: factor of the divergence.
            name, first, second, constant: as in `divergence`.
        """
        function = partial(of_divergence, name, constant)
        return self._predictions.joint_loss(losses, weight, function, [first, second])

    def with_labels(self, share: float | Tensor, record: Pass, labels: Int[Tensor, "B L"]) -> Float[Tensor, ""]:
        """Return share * (the pass's own loss) + (1 - share) * (its likelihood loss against other labels)."""
        return self._predictions.joint_loss({0: share}, 1 - share, cross_entropy, [record], labels[:, 1:])

    @property
    def graded(self) -> Bool[Tensor, "B L"]:
        """True where the prediction is a target of the loss: of the next token, or of the token itself."""
        return self._predictions.graded

    def per_token(self, total: Tensor) -> Tensor:
        """Divide a sum over graded tokens in the way the trainer divides its own loss."""
        return self._predictions.per_token(total)

    @property
    def _predictions(self) -> Predictions:
        return Predictions(self.hooks, self.batch, self.input_batch, self.token_weight, self.nll, not self._redrawn)

    def _same_dropout(self) -> None:
        """Start every pass from the random state that the first pass started from."""
        if self._random_state is None:
            self._random_state = RandomState(self.hooks.model)
        else:
            self._random_state.restore()
