"""Predictions: losses of what the passes of a step predict, on the trainer's loss scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from neft_zoo.errors import NoiseError
from neft_zoo.noise.batch import IGNORED, Batch
from neft_zoo.passes.chunked_logits import JointLoss, LogitsFunction, sum_in_chunks
from neft_zoo.passes.hooks import ModelHooks
from neft_zoo.passes.lm_head import LanguageHead
from neft_zoo.passes.records import Pass

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


@dataclass(frozen=True)
class Predictions:
    """The predictions of one batch: of every next token, of tokens themselves, of a class or of a span's ends.

    Args:
        hooks: of the model.
        batch: what the model was called with.
        input_batch: the batch of the loss's inputs, None if there is none.
        token_weight, nll: as in `Step`.
    """

    hooks: ModelHooks
    batch: Batch
    input_batch: Batch | None
    token_weight: Tensor | float | None
    nll: bool

    @property
    def graded(self) -> Bool[Tensor, "B L"]:
        """True where the prediction is a target of the loss."""
        if self.batch.graded is None:
            raise NoiseError(
                f"an objective that compares predictions needs labels in the batch, got none{self._where}."
            )
        if self.hooks.outputs.shift:
            return self.batch.graded[:, 1:]
        assert self.batch.labels is not None  # which `graded` is made of
        return (self.batch.labels != IGNORED) & self.batch.real

    def per_token(self, total: Tensor) -> Tensor:
        """Divide a sum over graded tokens as the trainer divides its own loss."""
        if self._of_classes:
            return total / len(self.batch.input_ids)
        if self.token_weight is None:
            return total / self.graded.sum().clamp(min=1)
        return total * self.token_weight

    def loss(
        self,
        function: LogitsFunction,
        passes: list[Pass],
        labels: Int[Tensor, "B L"] | None = None,
        trains: bool = True,
    ) -> Float[Tensor, ""]:
        """Return a function of the passes' logits, summed over graded tokens on the trainer's loss scale.

        Args:
            function: of the logits of every pass, and of the labels if there are any.
            passes: their records, in the order of the function's arguments.
            labels: other labels than the batch's, as `graded` has places; they are the targets then.
            trains: the LM head gets gradients; without, only what comes before it.
        """
        if self._of_classes:
            return function(*(self._class_logits(record) for record in passes)).mean()
        targets, aligned = self._targets(labels)
        aligned = tuple(tensor[targets] for tensor in aligned)
        kept = [self._predicted(record.logits)[targets].float() for record in passes if record.logits is not None]
        if len(kept) == len(passes):
            return self.per_token(function(*kept, *aligned).sum())
        head = LanguageHead(self.hooks.model)
        return self.per_token(sum_in_chunks(function, head, self._hidden(passes, targets), *aligned, trains=trains))

    def joint_loss(
        self,
        losses: Mapping[int, float | Tensor],
        weight: float | Tensor,
        function: LogitsFunction,
        passes: list[Pass],
        labels: Int[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the passes' losses, by their number, plus `weight` times a function of their logits.

        Where the trainer's loss is a cross-entropy, everything is computed from the same logits. The LM head is half
        of a small model's work: with loss and divergence apart, its products are computed nearly twice as often.
        """
        own_labels = self.batch.labels
        if own_labels is None or not self._is_cross_entropy(passes):
            own = [share * passes[number].loss for number, share in losses.items()]
            return sum(own, start=weight * self.loss(function, passes, labels))
        head = LanguageHead(self.hooks.model)
        targets, aligned = self._targets(labels)
        own_labels = own_labels[:, 1:]
        where = targets | (own_labels != IGNORED)
        joint = JointLoss(function, len(passes), losses, weight)
        aligned = tuple(tensor[where] for tensor in (own_labels, targets, *aligned))
        return self.per_token(sum_in_chunks(joint, head, self._hidden(passes, where), *aligned))

    @property
    def _of_classes(self) -> bool:
        return self.hooks.outputs.task in ("sequence", "span")

    @property
    def _where(self) -> str:
        """Say that the loss called the model on other token ids than the batch's, if it did."""
        if self.input_batch is None or self.batch is self.input_batch:
            return ""
        called, given = (tuple(batch.input_ids.shape) for batch in (self.batch, self.input_batch))
        return f" in the call with input_ids of shape {called} that the loss makes of the batch's {given}"

    def _targets(self, labels: Tensor | None) -> tuple[Bool[Tensor, "B L"], tuple[Tensor, ...]]:
        """Return where predictions have a target, and the labels that are not the batch's own."""
        return (self.graded, ()) if labels is None else (labels != IGNORED, (labels,))

    def _is_cross_entropy(self, passes: list[Pass]) -> bool:
        """Return whether the trainer's loss can be computed from the logits that a function of them is taken of."""
        if not self.nll or self.token_weight is None or not self.hooks.outputs.shift:
            return False
        return all(record.logits is None for record in passes) and LanguageHead(self.hooks.model).is_one_product()

    def _class_logits(self, record: Pass) -> Tensor:
        """Return a pass's logits of classes, or of the ends of a span."""
        if record.logits is None:
            raise NoiseError(f"model must return logits, got none from {type(self.hooks.model).__name__}.")
        return record.logits.float()

    def _predicted(self, values: Tensor) -> Tensor:
        """Return the positions (B, L, ...) whose prediction has a label at the places of `graded`."""
        return values[:, : values.shape[1] - self.hooks.outputs.shift]

    def _hidden(self, passes: list[Pass], places: Tensor) -> list[Tensor]:
        """Return the last hidden states that passes have at these places."""
        hidden = [self._predicted(record.hidden)[places] for record in passes if record.hidden is not None]
        if len(hidden) < len(passes):
            raise NoiseError(f"model must call its backbone for a loss, got {type(self.hooks.model).__name__}.")
        return hidden
