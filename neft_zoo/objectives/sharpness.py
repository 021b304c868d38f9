"""Sharpness-aware training: the loss at weights perturbed along the gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from neft_zoo.errors import NoiseError
from neft_zoo.noise.additive import Noise, TokenEdit
from neft_zoo.noise.schedules import Scalar, check_scalar, value_at
from neft_zoo.objectives.ascent import Ascends
from neft_zoo.objectives.norm_ball import SMALLEST
from neft_zoo.passes.changing_weights import changing_weights

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from neft_zoo.passes.step import Step


@dataclass(frozen=True)
class SharpnessAware(Ascends):
    """The loss at W + rho * g / |g|, where g is the gradient of all trainable weights W together (SAM).

    Args:
        rho: length of the perturbation (>= 0); the weights are restored bit for bit before the step ends.
    """

    rho: Scalar = 0.05

    site: ClassVar[str] = "weights"
    passes = 2

    def __post_init__(self) -> None:
        check_scalar("rho", self.rho)

    def __call__(self, step: Step, noise: Noise | TokenEdit | None) -> Float[Tensor, ""]:
        from neft_zoo.passes.accumulation import KeptGraphs, parameters_of  # late: `list` works without torch

        accumulation = step.accumulation
        if not isinstance(accumulation, KeptGraphs):
            engine = getattr(accumulation, "engine", type(accumulation).__name__)
            raise NoiseError(f"an ascent in the weights needs whole weights, got {engine}: choose DDP.")
        done = step.run(noise)
        used = set(map(id, parameters_of(done.loss)))  # a vision tower has no part in a batch without images
        weights = [weight for weight in step.hooks.model.parameters() if id(weight) in used]
        gradients = list(step.gradients(done.loss, dict(enumerate(weights))).values()) if weights else []
        if accumulation.is_scaled and not _norm(gradients) < math.inf:
            # The loss scaler skips this step, as a plain one whose gradients overflow, and tries a smaller scale.
            touched = sum(weight.sum().to(done.loss) for weight in weights)  # DDP waits for all of them
            return step.total(done.loss.detach() + math.nan * touched)
        with climbed(weights, gradients, value_at(self.rho, step.batch.progress)):
            # Differentiated here: a retained graph would only be used after the weights are restored.
            loss, _ = accumulation.at_once().part(step.run(noise).loss, ())
        return step.total(loss)


def _norm(gradients: Sequence[Tensor]) -> Tensor | float:
    return sum(gradient.float().square().sum() for gradient in gradients) ** 0.5


@contextmanager
def climbed(weights: Sequence[Tensor], gradients: Sequence[Tensor], size: float) -> Iterator[None]:
    """Move weights along their joint gradient by a given length, and restore the saved weights at the end.

    Raises:
        NoiseError: if the gradients are not finite, or if rounding leaves less than half of the way.
    """
    norm = _norm(gradients)
    if not norm < math.inf:
        raise NoiseError(f"the gradients of a step that climbs must be finite, got a norm of {float(norm)}.")
    way = done = 0.0  # only of weights of 16 bits
    with changing_weights() as save:
        for weight, gradient in zip(weights, gradients, strict=True):
            save(weight, hidden=True)
            delta = gradient.float() * (size / max(float(norm), SMALLEST))
            before = weight.data.clone() if weight.element_size() < 4 else None
            weight.data += delta.to(weight.dtype)
            if before is not None:
                way = way + delta.square().sum()
                done = done + ((weight.data.float() - before.float()) * delta).sum()
        if done < way / 2:
            raise NoiseError(
                "the way of an ascent in the weights must not be lost to rounding, got weights of 16 bits that keep "
                f"{float(done / way):.0%} of it: load the model in float32 (bf16=True still computes in 16 bits)."
            )
        yield
