"""Sharpness-aware training: the loss at weights perturbed along the gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from neft_zoo.errors import NoiseError
from neft_zoo.noise.additive import Noise, TokenEdit
from neft_zoo.noise.schedules import Scalar, check_scalar, value_at
from neft_zoo.objectives.ascent import Ascends
from neft_zoo.objectives.norm_ball import SMALLEST
from neft_zoo.passes.linear_weights import put_back

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
        from neft_zoo.passes.accumulation import EngineBackward, StoredGradients  # late: `list` works without torch

        if isinstance(step.accumulation, EngineBackward):
            raise NoiseError(
                f"an ascent in the weights needs whole weights, got {step.accumulation.engine}: choose DDP."
            )
        done = step.run(noise)
        weights = [weight for weight in step.hooks.model.parameters() if weight.requires_grad]
        gradients = step.gradients(done.loss, dict(enumerate(weights)))
        with climbed(weights, list(gradients.values()), value_at(self.rho, step.batch.progress)):
            # Differentiated here: a retained graph would only be used after the weights are restored.
            loss, _ = StoredGradients().part(step.run(noise).loss, ())
        return step.total(loss)


@contextmanager
def climbed(weights: Sequence[Tensor], gradients: Sequence[Tensor], size: float) -> Iterator[None]:
    """Move weights along their joint gradient by a given length, and restore the saved weights at the end.

    Raises:
        NoiseError: if the gradients are not finite.
    """
    norm = sum(gradient.float().square().sum() for gradient in gradients) ** 0.5
    if not norm < float("inf"):
        raise NoiseError(f"the gradients of a step that climbs must be finite, got a norm of {float(norm)}.")
    with ExitStack() as saved:
        for weight, gradient in zip(weights, gradients, strict=True):
            saved.enter_context(put_back(weight, hidden=True))
            weight.data += (gradient.float() * (size / max(float(norm), SMALLEST))).to(weight.dtype)
        yield
