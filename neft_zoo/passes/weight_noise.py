"""Noise on the weights: once before training, or at every step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from neft_zoo.errors import NoiseError
from neft_zoo.noise import randomness
from neft_zoo.noise.schedules import check_count, check_number
from neft_zoo.passes.linear_weights import LinearWeight, check_linear_weights, draw, shifted

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn


@runtime_checkable
class WeightNoise(Protocol):
    """A change of a model's weights, once before training or at every step.

    Attributes:
        every_step: whether the weights are changed at every step.
    """

    every_step: ClassVar[bool]

    def check(self, model: nn.Module) -> None:
        """Raise if the model has no weights to which this change applies."""

    def begin(self, model: nn.Module, key: int) -> None:
        """Change the weights once, before the first step of a run; never on resume."""

    def around(self, model: nn.Module, key: int, progress: float) -> AbstractContextManager[None]:
        """Return a context that changes the weights for one step and restores them bit for bit."""
        ...


@dataclass(frozen=True)
class OnceRelative:
    """Every trainable matrix += U(-strength/2, strength/2) * std(matrix), once.

    Args:
        strength: width of the uniform distribution in standard deviations of the matrix (dimensionless, >= 0).
    """

    strength: float

    every_step: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_number("strength", self.strength)

    def check(self, model: nn.Module) -> None:
        if not any(True for _ in self._matrices(model)):
            raise NoiseError("model must have trainable matrices to add noise to, got none.")

    def begin(self, model: nn.Module, key: int) -> None:
        from neft_zoo.passes.sharding import gathered

        for name, weight in self._matrices(model):
            with gathered([weight], changed=True):
                drawn = draw(weight, key, name, randomness.uniform)
                weight.data += (drawn * (self.strength / 2 * weight.data.float().std())).to(weight.dtype)

    def around(self, model: nn.Module, key: int, progress: float) -> AbstractContextManager[None]:
        return nullcontext()

    def _matrices(self, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
        for name, weight in model.named_parameters():
            size = getattr(weight, "ds_shape", weight.shape)  # under ZeRO-3 the weight itself is empty
            if weight.requires_grad and len(size) > 1 and size.numel() > 1 and weight.is_floating_point():
                yield name, weight


@dataclass(frozen=True)
class EveryStep:
    """Each step: W += N(0, (f * rho * |row| / sqrt(n_in))^2), with f rising from 0 to 1 as half a cosine.

    With LoRA, W is the base weight of an adapted layer and |row| the norm of the merged row; without an adapter, W is
    a trainable matrix of a linear layer.

    Args:
        rho: norm of a row's noise over the row's norm at the end of training (dimensionless, >= 0).
    """

    rho: float

    every_step: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("rho", self.rho)

    def check(self, model: nn.Module) -> None:
        check_linear_weights(model, "flat_lora")

    def begin(self, model: nn.Module, key: int) -> None:
        """Do nothing: the noise is added at every step."""

    def around(self, model: nn.Module, key: int, progress: float) -> AbstractContextManager[None]:
        rise = (1 - math.cos(math.pi * progress)) / 2

        def change(target: LinearWeight) -> Tensor:
            size = rise * self.rho * target.merged().float().square().mean(target.inputs, keepdim=True).sqrt()
            return draw(target.weight, key, target.name, randomness.normal) * size

        return shifted(model, change)


@dataclass(frozen=True)
class RoundingNoise:
    """Each step: W += U(-1/2, 1/2) * step, where step is that of a `bits`-bit grid over a group's range of weights.

    A group is a run of inputs in a row of the weight (with LoRA, of the merged weight); 0 means whole rows. So the
    noise is distributed like the error of rounding to nearest.
    """

    bits: int
    group: int

    every_step: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count("bits", self.bits, 2)
        check_count("group", self.group)

    def check(self, model: nn.Module) -> None:
        check_linear_weights(model, "quant_noise")

    def begin(self, model: nn.Module, key: int) -> None:
        """Do nothing before training."""

    def around(self, model: nn.Module, key: int, progress: float) -> AbstractContextManager[None]:
        def change(target: LinearWeight) -> Tensor:
            merged = target.merged().float()
            steps = self.steps(merged if target.inputs else merged.T)
            return (
                draw(target.weight, key, target.name, randomness.uniform) * (steps if target.inputs else steps.T) / 2
            )

        return shifted(model, change)

    def steps(self, weight: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows inputs"]:
        """Return the size of the quantization step at every weight."""
        from torch.nn.functional import pad

        width = weight.shape[1]
        size = self.group or width
        # An incomplete last group is padded with its last weight.
        groups = pad(weight[None], (0, -width % size), mode="replicate")[0].unflatten(1, (-1, size))
        step = (groups.amax(-1, keepdim=True) - groups.amin(-1, keepdim=True)) / (2**self.bits - 1)
        return step.expand_as(groups).flatten(1)[:, :width]
