"""Step: one batch as an objective sees it, whoever trains."""

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
        input_batch: the batch of the loss's inputs; None if the hooks read it from the model's own call.
        compute: the trainer's own loss of one pass, on these token ids where there is an input batch, and on these
            labels where others than the batch's are given.
        token_weight: what turns a sum over graded tokens into the trainer's loss scale; None means their mean.
        nll: the trainer's loss is `token_weight` times the labels' negative log-likelihood and nothing else.
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

    def run(
        self,
        noise: Noise | TokenEdit | None,
        redraw_dropout: bool = False,
        labels: Int[Tensor, "B L"] | None = None,
    ) -> Pass:
        """Run one forward pass and return its record.

        Args:
            noise: what is added, or edits the token ids; None for nothing.
            redraw_dropout: draw new dropout masks, where all passes of a step share theirs otherwise.
            labels: the loss's targets, where they are not the batch's own.
        """
        if not redraw_dropout:
            self._same_dropout()
        ids = None if self.input_batch is None else self.input_batch.input_ids
        if isinstance(noise, TokenEdit):
            ids, noise = noise.edit(self.batch), None
        with self.hooks.open(noise, self.input_batch, ids) as record:
            record.loss = self.compute(ids) if labels is None else self.compute(ids, labels)
        self.add(record, noisy=noise is not None)
        return record

    def add(self, record: Pass, noisy: bool = True) -> None:
        """Add the record of a pass.

        Args:
            record: of the pass.
            noisy: whether it had a noise.

        Raises:
            NoiseError: if the noise found no way into the model.
        """
        unseen = self.hooks.records_layers and not record.inputs
        if record.batch is None or unseen or (noisy and not record.deltas):
            raise NoiseError(self._reason(record))
        self.passes.append(record)

    def _reason(self, record: Pass) -> str:
        """Return why the noise of a pass found no way into the model."""
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
            if record.ids_given:  # XLNet exchanges rows and columns, CPM-Ant puts tokens of its own in front
                return f"{name} must look up the token ids that it is called with, of shape {wanted}, got {got}."
            return (
                f"the loss must call {name} with token ids of the batch's shape {wanted}, which noise enters by, "
                f"got {got}."
            )
        return f"the loss must call the model with input_ids, which noise enters by, got none from {name}."

    @property
    def batch(self) -> Batch:
        """The batch of the last pass, before any pass that of the loss's inputs."""
        batch = self.passes[-1].batch if self.passes else self.input_batch
        assert batch is not None  # objectives that read calls look at the batch after a pass
        return batch

    def fixed(self, deltas: Mapping[int, Tensor], like: Noise | TokenEdit | None, sign: float = 1.0) -> Noise:
        """Return the noise that adds these deltas, at the sites of `like`."""
        fixed = FixedNoise(deltas, sign)
        return replace(like, noise=fixed) if isinstance(like, AtLayers) else fixed

    def gradients(self, value: Tensor, deltas: Mapping[int, Tensor], share: float = 0.0) -> dict[int, Tensor]:
        """Return the gradient of `value` at each delta, and count `share * value` to the loss of the step."""
        leaves = list(deltas.values())
        if share:
            gradients = [gradient / share for gradient in self.count(share * value, leaves)]
        else:
            gradients = self.accumulation.gradient(value, leaves)
        return dict(zip(deltas, gradients, strict=True))

    def count(self, part: Tensor, leaves: Sequence[Tensor] = ()) -> Sequence[Tensor]:
        """Count a part of the step's loss, and return its gradient at leaves."""
        kept, gradients = self.accumulation.part(part, leaves)
        self._kept.append(kept)
        return gradients

    def total(self, loss: Tensor) -> Tensor:
        """Return the loss of the step: the last part plus those that were counted before."""
        return self.accumulation.total(sum(self._kept, start=loss))

    def divergence(
        self, name: Divergence, first: Pass, second: Pass, constant: bool = False, trains: bool = True
    ) -> Float[Tensor, ""]:
        """Return the divergence of two passes' predictions over the graded tokens, on the trainer's loss scale.

        Few logits are kept by the passes and compared as they are. Otherwise the hidden states are projected through
        the LM head once more, in chunks, so that no tensor of all positions by all words exists beside those of the
        passes.

        Args:
            name: which divergence.
            first, second: its two sides, in this order.
            constant: no gradient flows into the first side, nor into the LM head through it.
            trains: the LM head gets gradients; without, only what comes before it.
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
        """Return the passes' own losses plus `weight` times their divergence.

        Args:
            losses: the factor of the first pass's loss, at 0, and of the second's, at 1; the others do not count.
            weight: of the divergence.
            name, first, second, constant: as in `divergence`.
        """
        function = partial(of_divergence, name, constant)
        return self._predictions.joint_loss(losses, weight, function, [first, second])

    def with_labels(self, share: float | Tensor, record: Pass, labels: Int[Tensor, "B L"]) -> Float[Tensor, ""]:
        """Return `share` times a pass's own loss plus the rest of 1 times its likelihood loss against other labels."""
        return self._predictions.joint_loss({0: share}, 1 - share, cross_entropy, [record], labels[:, 1:])

    @property
    def graded(self) -> Bool[Tensor, "B L"]:
        """True where the prediction is a target of the loss: of the next token, or of the token itself."""
        return self._predictions.graded

    def per_token(self, total: Tensor) -> Tensor:
        """Divide a sum over graded tokens as the trainer divides its own loss."""
        return self._predictions.per_token(total)

    @property
    def _predictions(self) -> Predictions:
        return Predictions(self.hooks, self.batch, self.input_batch, self.token_weight, self.nll)

    def _same_dropout(self) -> None:
        """Let every pass start from the random state that the first one started from."""
        if self._random_state is None:
            self._random_state = RandomState(self.hooks.model)
        else:
            self._random_state.restore()
