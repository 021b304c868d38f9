"""Two noisy passes that are trained towards the clean one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from neft_zoo.errors import NoiseError
from neft_zoo.noise.additive import AtLayers, Noise, TokenEdit
from neft_zoo.noise.robust import Redrawn
from neft_zoo.noise.schedules import check_number
from neft_zoo.objectives.base import ComparesPredictions, Family

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from neft_zoo.passes.step import Step


@dataclass(frozen=True)
class CleanTeacher(ComparesPredictions):
    """share * CE(clean) + (1 - share) * mean KL(clean || noisy) + consistency * KL(noisy 2 || noisy 1) (NoiseFiT).

    The first argument of every divergence is detached, so the clean pass is a teacher that is trained on the labels
    only.

    Args:
        share: weight of the clean loss (0 to 1); 1 - share is the weight of the two divergences from the clean pass.
        consistency: weight of the divergence between the noisy passes (>= 0).
    """

    share: float = 0.5
    consistency: float = 0.05

    family: ClassVar[Family] = "consistency"
    passes = 3

    def __post_init__(self) -> None:
        check_number("share", self.share, 0, 1)
        check_number("consistency", self.consistency)

    def takes(self, noise: Noise | TokenEdit | None) -> None:
        if noise is None or isinstance(noise, TokenEdit):
            raise NoiseError(f"a clean teacher needs a noise on embeddings or layers, got {noise!r}.")

    def __call__(self, step: Step, noise: Noise | TokenEdit | None) -> Float[Tensor, ""]:
        assert isinstance(noise, Noise)  # checked by `takes`
        again = replace(noise, noise=Redrawn(noise.noise)) if isinstance(noise, AtLayers) else Redrawn(noise)
        clean, one, two = step.run(None), step.run(noise), step.run(again)
        taught = sum(step.divergence("kl", clean, noisy, constant=True) for noisy in (one, two)) / 2
        agreement = step.divergence("kl", two, one, constant=True)
        return self.share * clean.loss + (1 - self.share) * taught + self.consistency * agreement
