"""Objectives without a divergence: a single pass, a symmetric pair, mixed targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from neft_zoo.errors import NoiseError
from neft_zoo.noise.additive import Noise, TokenEdit
from neft_zoo.noise.mixup import EmbedMix
from neft_zoo.objectives.base import ComparesPredictions, Defaults, Family

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn

    from neft_zoo.passes.step import Step


@dataclass(frozen=True)
class SinglePass(Defaults):
    """The trainer's own loss with noisy embeddings."""

    family: ClassVar[Family] = "single pass"
    passes = 1

    def __call__(self, step: Step, noise: Noise | TokenEdit | None) -> Float[Tensor, ""]:
        return step.run(noise).loss


@dataclass(frozen=True)
class SymmetricPair(Defaults):
    """The mean loss of two passes: one with a draw added, one with the same draw subtracted."""

    family: ClassVar[Family] = "consistency"
    passes = 2

    def takes(self, noise: Noise | TokenEdit | None) -> None:
        if noise is None or isinstance(noise, TokenEdit):
            raise NoiseError(f"a symmetric pair needs a noise on embeddings or layers, got {noise!r}.")

    def __call__(self, step: Step, noise: Noise | TokenEdit | None) -> Float[Tensor, ""]:
        plus = step.run(noise)
        step.count(plus.loss / 2)
        minus = step.run(step.fixed(plus.deltas, noise, sign=-1.0))
        return step.total(minus.loss / 2)


@dataclass(frozen=True)
class MixedTargets(ComparesPredictions):
    """l * loss(own labels) + (1 - l) * loss(the partner's labels), for a noise that mixes documents.

    Both are the trainer's own loss. If it is the labels' likelihood, one pass gives both terms. Any other loss (DFT,
    label smoothing, a router loss) is computed in a second pass with the partner's labels.
    """

    family: ClassVar[Family] = "single pass"
    passes = 1

    def check(self, model: nn.Module) -> None:
        from neft_zoo.passes.anatomy import task_of  # late: `neft-zoo list` works without torch

        super().check(model)
        if task_of(model) != "next token":
            raise NoiseError(f"mixed targets need a model that predicts the next token, got {type(model).__name__}.")

    def takes(self, noise: Noise | TokenEdit | None) -> None:
        if not isinstance(noise, EmbedMix):
            raise NoiseError(f"mixed targets need a noise that mixes documents (EmbedMix), got {noise!r}.")

    def __call__(self, step: Step, noise: Noise | TokenEdit | None) -> Float[Tensor, ""]:
        assert isinstance(noise, EmbedMix)  # checked by `takes`
        batch = step.input_batch
        if batch is None:
            raise NoiseError("a loss of two labels needs labels in the batch, got none that the loss is given.")
        labels, share = noise.partners_labels(batch, first_tokens=not step.nll), noise.share(batch)
        if not noise.mixes(batch):
            return step.run(noise).loss
        if step.nll:
            return step.with_labels(share, step.run(noise), labels)
        _check_second_pass(step.hooks.model)
        step.count((1 - share) * step.run(noise, labels=labels).loss)
        return step.total(share * step.run(noise).loss)  # last, since TRL logs the accuracy of the last pass


def _check_second_pass(model: nn.Module) -> None:
    """Raise if gradient checkpointing prevents differentiating a first pass before the second.

    Raises:
        NoiseError: with reentrant checkpointing.
    """
    from neft_zoo.passes.anatomy import checkpoints_reentrantly

    if checkpoints_reentrantly(model):
        raise NoiseError(
            "use_reentrant must be false with mixed targets and a loss other than the labels' likelihood, which takes "
            "a second pass, got true."
        )
