"""Step: one batch as an objective sees it, whoever trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from neft_zoo.errors import NoiseError
from neft_zoo.noise.additive import AtLayers, Noise, TokenEdit
from neft_zoo.noise.batch import IGNORED, Batch
from neft_zoo.passes.accumulation import Accumulation, KeptGraphs
from neft_zoo.passes.anatomy import base_model, find_embedding
from neft_zoo.passes.chunked_logits import JointLoss, LogitsFunction, cross_entropy, of_divergence, sum_in_chunks
from neft_zoo.passes.divergences import Divergence
from neft_zoo.passes.hooks import ModelHooks
from neft_zoo.passes.lm_head import LanguageHead
from neft_zoo.passes.random_state import RandomState
from neft_zoo.passes.records import FixedNoise, Pass

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass
class Step:
    """The passes of one batch.

    Args:
        tap: the hooks of the model.
        known: the batch; None if the tap reads it from the model's own call.
        compute: the trainer's own loss of one pass, on these token ids where the batch is known.
        token_weight: what turns a sum over graded tokens into the trainer's loss scale; None means their mean.
        nll: the trainer's loss is `token_weight` times the labels' negative log-likelihood and nothing else.
        accumulation: how a part of the loss is differentiated before the other passes are run.
    """

    tap: ModelHooks
    known: Batch | None
    compute: Callable[[Tensor | None], Any]
    token_weight: Tensor | float | None = None
    nll: bool = False
    accumulation: Accumulation = field(default_factory=KeptGraphs)
    passes: list[Pass] = field(default_factory=list)
    _kept: list[Tensor] = field(default_factory=list)
    _random_state: RandomState | None = None

    def run(self, noise: Noise | TokenEdit | None, redraw_dropout: bool = False) -> Pass:
        """Run one forward pass and return its record.

        All passes of a step share their dropout masks, unless `redraw_dropout` is true.
        """
        if not redraw_dropout:
            self._same_dropout()
        ids = None if self.known is None else self.known.input_ids
        if isinstance(noise, TokenEdit):
            ids, noise = noise.edit(self.batch), None
        with self.tap.open(noise, self.known, ids) as done:
            done.loss = self.compute(ids)
        self.add(done, noisy=noise is not None)
        return done

    def add(self, done: Pass, noisy: bool = True) -> None:
        """Add the record of a pass.

        Args:
            done: the record.
            noisy: whether it had a noise.

        Raises:
            NoiseError: if the noise found no way into the model.
        """
        if done.batch is None or (noisy and not done.deltas):
            raise NoiseError(self._reason(done))
        self.passes.append(done)

    def _reason(self, done: Pass) -> str:
        """Return why the noise of a pass found no way into the model."""
        name = type(base_model(self.tap.model)).__name__
        if find_embedding(self.tap.model) is not self.tap.embeddings[0]:
            return f"the token embedding of {name} must stay as it was when the noise was attached, got another one."
        if done.unmatched and done.batch is not None:
            return (
                f"the loss must call {name} with token ids of the batch's shape {tuple(done.batch.input_ids.shape)}, "
                f"which noise enters by, got {done.unmatched[0]}."
            )
        return f"the loss must call the model with input_ids, which noise enters by, got none from {name}."

    @property
    def batch(self) -> Batch:
        """The batch of the last pass, before any pass the batch that is known."""
        batch = self.passes[-1].batch if self.passes else self.known
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
        if self.tap.task in ("sequence", "span"):
            return self._over_classes(function, first, second)
        return self._over_logits(function, [first, second], self.graded, trains=trains)

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
        if self.tap.task in ("sequence", "span"):
            own = [share * (first, second)[number].loss for number, share in losses.items()]
            return sum(own, start=weight * self._over_classes(function, first, second))
        return self._joint_loss(losses, weight, function, [first, second], self.graded)

    def with_labels(self, share: float | Tensor, done: Pass, labels: Int[Tensor, "B L"]) -> Float[Tensor, ""]:
        """Return `share` times a pass's own loss plus the rest of 1 times its loss against other labels."""
        targets = labels[:, 1:]
        return self._joint_loss({0: share}, 1 - share, cross_entropy, [done], targets != IGNORED, targets)

    @property
    def graded(self) -> Tensor:
        """True where the prediction is a target of the loss: of the next token, or of the token itself."""
        if self.batch.graded is None:
            raise NoiseError(
                f"an objective that compares predictions needs labels in the batch, got none{self._where}."
            )
        return self.batch.graded[:, self._shift :]

    @property
    def _shift(self) -> int:
        """How many positions a label stands after its prediction."""
        return int(self.tap.task == "next token")

    @property
    def _where(self) -> str:
        """Say that the loss called the model on other token ids than the batch's, if it did."""
        if self.known is None or self.batch is self.known:
            return ""
        called, given = (tuple(batch.input_ids.shape) for batch in (self.batch, self.known))
        return f" in the call with input_ids of shape {called} that the loss makes of the batch's {given}"

    def per_token(self, total: Tensor) -> Tensor:
        """Divide a sum over graded tokens as the trainer divides its own loss."""
        if self.tap.task in ("sequence", "span"):
            return total / len(self.batch.input_ids)
        if self.token_weight is None:
            return total / self.graded.sum().clamp(min=1)
        return total * self.token_weight

    def _over_classes(self, function: LogitsFunction, first: Pass, second: Pass) -> Float[Tensor, ""]:
        """Return the mean of a function of two passes' logits of classes, or of the ends of a span."""
        if first.logits is None or second.logits is None:
            raise NoiseError(f"model must return logits, got none from {type(self.tap.model).__name__}.")
        return function(first.logits.float(), second.logits.float()).mean()

    def _predicted(self, values: Tensor) -> Tensor:
        """Return the positions (B, L, ...) whose prediction has a label at the places of `graded`."""
        return values[:, : values.shape[1] - self._shift]

    def _over_logits(
        self, function: LogitsFunction, passes: list[Pass], places: Tensor, *aligned: Tensor, trains: bool = True
    ) -> Float[Tensor, ""]:
        """Return a function of the passes' logits summed over these places, on the trainer's loss scale."""
        aligned = tuple(tensor[places] for tensor in aligned)
        kept = [self._predicted(done.logits)[places].float() for done in passes if done.logits is not None]
        if len(kept) == len(passes):
            return self.per_token(function(*kept, *aligned).sum())
        head = LanguageHead(self.tap.model)
        return self.per_token(sum_in_chunks(function, head, self._hidden(passes, places), *aligned, trains=trains))

    def _joint_loss(
        self,
        losses: Mapping[int, float | Tensor],
        weight: float | Tensor,
        function: LogitsFunction,
        passes: list[Pass],
        places: Tensor,
        *aligned: Tensor,
    ) -> Float[Tensor, ""]:
        """Return the passes' losses, by their number, plus `weight` times a function of their logits.

        Where the trainer's loss is a cross-entropy, everything is computed from the same logits. The LM head is half
        of a small model's work: with loss and divergence apart, its products are computed nearly twice as often.
        """
        labels, unknown = self.batch.labels, not self.nll or self.token_weight is None
        unknown = unknown or any(done.logits is not None for done in passes) or self.tap.task != "next token"
        if unknown or labels is None or not (head := LanguageHead(self.tap.model)).is_one_product():
            own = [share * passes[number].loss for number, share in losses.items()]
            return sum(own, start=weight * self._over_logits(function, passes, places, *aligned))
        targets = labels[:, 1:]
        where = places | (targets != IGNORED)
        joint = JointLoss(function, len(passes), losses, weight)
        aligned = tuple(tensor[where] for tensor in (targets, places, *aligned))
        return self.per_token(sum_in_chunks(joint, head, self._hidden(passes, where), *aligned))

    def _hidden(self, passes: list[Pass], places: Tensor) -> list[Tensor]:
        """Return the last hidden states that passes have at these places."""
        hidden = [self._predicted(done.hidden)[places] for done in passes if done.hidden is not None]
        if len(hidden) < len(passes):
            raise NoiseError(f"model must call its backbone for a loss, got {type(self.tap.model).__name__}.")
        return hidden

    def _same_dropout(self) -> None:
        """Let every pass start from the random state that the first one started from."""
        if self._random_state is None:
            self._random_state = RandomState(self.tap.model)
        else:
            self._random_state.restore()
