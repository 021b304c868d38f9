"""Predictions: losses of the predictions of a step's passes, on the trainer's loss scale."""

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
    """The predictions for one batch: of next tokens, masked or classified tokens, a class, or the ends of a span.

    Args:
        hooks: of the model.
        batch: the batch that the model was called with.
        input_batch: the batch of the loss's inputs, or None.
        token_weight, nll: as in `Step`.
        same_dropout: whether the passes share their dropout masks.
    """

    hooks: ModelHooks
    batch: Batch
    input_batch: Batch | None
    token_weight: Tensor | float | None
    nll: bool
    same_dropout: bool

    @property
    def graded(self) -> Bool[Tensor, "B L"]:
        """True where the prediction is a target of the loss."""
        if self.batch.graded is None:
            raise NoiseError(
                f"an objective that compares predictions needs labels in the batch, got none{self._where}."
            )
        if self.hooks.outputs.shift:
            return self.batch.graded[:, 1:]
        assert self.batch.labels is not None  # `graded` is computed from it
        return (self.batch.labels != IGNORED) & self.batch.real

    def per_token(self, total: Tensor) -> Tensor:
        """Divide a sum over graded tokens in the way the trainer divides its own loss."""
        if self.token_weight is not None:
            return total * self.token_weight
        if self._of_classes:
            return total / len(self.batch.input_ids)
        return total / self.graded.sum().clamp(min=1)

    def loss(
        self,
        function: LogitsFunction,
        passes: list[Pass],
        labels: Int[Tensor, "B L"] | None = None,
        trains: bool = True,
    ) -> Float[Tensor, ""]:
        """Return a function of the passes' logits, summed over graded tokens, on the trainer's loss scale.

        Args:
            function: takes the logits of every pass, and the labels if there are any.
            passes: their records, in the order of the function's arguments.
            labels: used as targets instead of the batch's labels; aligned with `graded`.
            trains: whether the LM head gets gradients, or only what comes before it.
        """
        if self._of_classes:
            mean = function(*(self._class_logits(record) for record in passes)).mean()
            return self.per_token(mean * len(self.batch.input_ids))
        targets, aligned = self._targets(labels)
        aligned = tuple(tensor[targets] for tensor in aligned)
        kept = [self._predicted(record.logits)[targets].float() for record in passes if record.logits is not None]
        if len(kept) == len(passes):
            return self.per_token(function(*kept, *aligned).sum())
        head = LanguageHead(self.hooks.model)
        hidden, shared = self._hidden(passes, targets), self.same_dropout
        return self.per_token(sum_in_chunks(function, head, hidden, *aligned, trains=trains, same_dropout=shared))

    def joint_loss(
        self,
        losses: Mapping[int, float | Tensor],
        weight: float | Tensor,
        function: LogitsFunction,
        passes: list[Pass],
        labels: Int[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the weighted losses of passes, keyed by pass number, plus `weight` times a function of their logits.

        If the trainer's loss is a cross-entropy, everything is computed from the same logits. The LM head is half of a
        small model's compute, and separate loss and divergence would need nearly twice as many products with it.
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
        """Return a note that the loss called the model on other token ids than the batch's, or an empty string."""
        if self.input_batch is None or self.batch is self.input_batch:
            return ""
        called, given = (tuple(batch.input_ids.shape) for batch in (self.batch, self.input_batch))
        return f" in the call with input_ids of shape {called} that the loss makes of the batch's {given}"

    def _targets(self, labels: Tensor | None) -> tuple[Bool[Tensor, "B L"], tuple[Tensor, ...]]:
        """Return a mask of the predictions with a target, and the labels if they are not the batch's."""
        return (self.graded, ()) if labels is None else (labels != IGNORED, (labels,))

    def _is_cross_entropy(self, passes: list[Pass]) -> bool:
        """Return whether the trainer's loss can be computed from the same logits as the function of them."""
        if not self.nll or self.token_weight is None or not self.hooks.outputs.shift:
            return False
        return all(record.logits is None for record in passes) and LanguageHead(self.hooks.model).is_one_product()

    def _class_logits(self, record: Pass) -> Tensor:
        """Return a pass's logits for classes, or for the ends of a span."""
        if record.logits is None:
            raise NoiseError(f"model must return logits, got none from {type(self.hooks.model).__name__}.")
        return record.logits.float()

    def _predicted(self, values: Tensor) -> Tensor:
        """Return the values (B, L, ...) at positions whose prediction is graded, aligned with `graded`."""
        return values[:, : values.shape[1] - self.hooks.outputs.shift]

    def _hidden(self, passes: list[Pass], places: Tensor) -> list[Tensor]:
        """Return the last hidden states of the passes at these positions."""
        hidden = [self._predicted(record.hidden)[places] for record in passes if record.hidden is not None]
        if len(hidden) < len(passes):
            raise NoiseError(f"model must call its backbone for a loss, got {type(self.hooks.model).__name__}.")
        return hidden
