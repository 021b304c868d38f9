"""Objectives that compare the predictions or hidden states of two passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from neft_zoo.errors import NoiseError
from neft_zoo.noise.additive import Noise, TokenEdit
from neft_zoo.noise.schedules import Scalar, check_count, check_number, check_scalar, value_at
from neft_zoo.objectives.base import ComparesPredictions, Defaults, Family
from neft_zoo.passes.divergences import DIVERGENCES, Divergence

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn

    from neft_zoo.noise.batch import Batch
    from neft_zoo.passes.step import Step


@dataclass(frozen=True)
class DropoutConsistency(ComparesPredictions):
    """The mean loss of two passes with different dropout masks, plus their symmetric divergence (R-Drop).

    Args:
        weight: of the mean of both KL divergences (>= 0).
    """

    weight: Scalar = 1.0

    family: ClassVar[Family] = "consistency"
    site: ClassVar[str] = "dropout"
    passes = 2

    def __post_init__(self) -> None:
        check_scalar("weight", self.weight)

    def check(self, model: nn.Module) -> None:
        from neft_zoo.passes.anatomy import require_dropout

        super().check(model)
        require_dropout(model)

    def __call__(self, step: Step, noise: Noise | TokenEdit | None) -> Float[Tensor, ""]:
        one, two = step.run(noise), step.run(noise, redraw_dropout=True)
        weight = value_at(self.weight, step.batch.progress)
        return step.with_divergence({0: 0.5, 1: 0.5}, weight / 2, "symmetric_kl", one, two)


@dataclass(frozen=True)
class LayerStability(Defaults):
    """CE(clean) + weight * |h(clean) - h(noisy)|^2 / D, summed over the outputs of layers and over real tokens.

    Tokens of documents without a graded token do not count. The sum is divided in the way the trainer divides its own
    loss, by the step's number of graded tokens.

    Args:
        weight: of the distance (>= 0).
        first: the first decoder layer whose output is compared.
    """

    weight: Scalar = 1.0
    first: int = 0

    family: ClassVar[Family] = "consistency"
    passes = 2
    hidden: ClassVar[bool] = True
    inputs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_scalar("weight", self.weight)
        check_count("first", self.first)

    def check(self, model: nn.Module) -> None:
        from neft_zoo.passes.layers import find_layers  # late: `neft-zoo list` works without torch

        layers = len(find_layers(model))
        if self.first >= layers:
            raise NoiseError(f"first must be below the model's {layers} layers, got {self.first}.")

    def __call__(self, step: Step, noise: Noise | TokenEdit | None) -> Float[Tensor, ""]:
        clean, noisy = step.run(None), step.run(noise)
        # The output of a layer is the input of the next one, and that of the last layer is the input of the final
        # norm.
        counted = [number for number in sorted(clean.inputs) if number > self.first]
        distances = (_distance(clean.inputs[number], noisy.inputs[number], step.batch) for number in counted)
        distance = sum(distances, start=clean.loss.new_zeros(()))
        return clean.loss + value_at(self.weight, step.batch.progress) * step.per_token(distance)


def _distance(one: Tensor, other: Tensor, batch: Batch) -> Tensor:
    """Return the squared distance per feature, summed over the real tokens of documents with a graded one.

    A document without any, as one of a single token, has no loss; some layouts cannot tell it from padding.

    Raises:
        NoiseError: unless every token has one state, or one in each of several streams.
    """
    if one.shape[-3:-1] != batch.real.shape:
        states, tokens = tuple(one.shape[:-1]), tuple(batch.real.shape)
        raise NoiseError(
            f"layers must take one state per token to be compared, got {states} states of {tokens} tokens."
        )
    counted = batch.real
    if batch.graded is not None:
        counted = counted & (batch.document_sum(batch.graded.float()) > 0)
    return ((one.float() - other.float()).square().mean(-1) * counted).sum()


@dataclass(frozen=True)
class Consistency(ComparesPredictions):
    """first * CE(clean) + second * CE(noisy) + weight * divergence of the two predictions.

    Args:
        divergence: between the clean and the noisy distribution, summed over the graded tokens and divided in the way
            the trainer divides its own loss.
        weight: of the divergence (>= 0).
        first: weight of the clean pass's loss (>= 0).
        second: weight of the noisy pass's loss (>= 0).
    """

    divergence: Divergence = "symmetric_kl"
    weight: Scalar = 1.0
    first: float = 1.0
    second: float = 0.0

    family: ClassVar[Family] = "consistency"
    passes = 2

    def __post_init__(self) -> None:
        check_scalar("weight", self.weight)
        check_number("first", self.first)
        check_number("second", self.second)
        if self.divergence not in DIVERGENCES:
            raise NoiseError(f"divergence must be one of {', '.join(DIVERGENCES)}, got {self.divergence!r}.")

    def __call__(self, step: Step, noise: Noise | TokenEdit | None) -> Float[Tensor, ""]:
        clean, noisy = step.run(None), step.run(noise)
        losses = {number: share for number, share in enumerate((self.first, self.second)) if share}
        weight = value_at(self.weight, step.batch.progress)
        return step.with_divergence(losses, weight, self.divergence, clean, noisy)
