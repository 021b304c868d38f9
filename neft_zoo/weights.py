"""Noise on the weights: once before training, or around every step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from neft_zoo import randomness
from neft_zoo.errors import NoiseError
from neft_zoo.schedules import check_number

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn


class WeightNoise(Protocol):
    """What is done to the weights of a model."""

    def check(self, model: nn.Module) -> None:
        """Raise if the model's weights cannot be changed so."""

    def begin(self, model: nn.Module, key: int) -> None:
        """Change the weights once, before the first step of a run; never on resume."""

    def around(self, model: nn.Module, key: int, progress: float) -> AbstractContextManager[None]:
        """Change the weights for one forward and backward pass and restore them bit for bit."""
        ...


@dataclass(frozen=True)
class OnceRelative:
    """Every trainable matrix += U(-strength/2, strength/2) * std(matrix), once."""

    strength: float

    def __post_init__(self) -> None:
        check_number("strength", self.strength)

    def check(self, model: nn.Module) -> None:
        if not any(True for _ in self._matrices(model)):
            raise NoiseError("model must have trainable matrices to add noise to, got none.")

    def begin(self, model: nn.Module, key: int) -> None:
        for name, weight in self._matrices(model):
            drawn = draw(weight, key, name, randomness.uniform)
            weight.data += (drawn * (self.strength / 2 * weight.data.float().std())).to(weight.dtype)

    def around(self, model: nn.Module, key: int, progress: float) -> AbstractContextManager[None]:
        return nullcontext()

    def _matrices(self, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
        return (
            (n, p) for n, p in model.named_parameters() if p.requires_grad and p.ndim > 1 and p.is_floating_point()
        )


@dataclass(frozen=True)
class EveryStep:
    """Each step: W += N(0, (f * rho * |row| / sqrt(n_in))^2), f rising from 0 to 1 as half a cosine, then W as before.

    Under LoRA the base weights of the adapted layers are moved, and |row| is that of base plus adapter; without an
    adapter, the trainable matrices of linear layers are.
    """

    rho: float

    def __post_init__(self) -> None:
        check_number("rho", self.rho)

    def check(self, model: nn.Module) -> None:
        targets = list(_linear_weights(model))
        if not targets:
            raise NoiseError("model must have linear layers that train or carry LoRA, got none.")
        for name, weight, _ in targets:
            if not weight.is_floating_point():
                raise NoiseError(f"flat_lora needs weights in a floating type, got {weight.dtype} in {name}.")

    def begin(self, model: nn.Module, key: int) -> None:
        """There is nothing to do before training."""

    @contextmanager
    def around(self, model: nn.Module, key: int, progress: float) -> Iterator[None]:
        rise = (1 - math.cos(math.pi * progress)) / 2
        saved = []
        try:
            for name, weight, merged in _linear_weights(model):
                # Adding and subtracting would drift in bf16, hence a copy.
                saved.append((weight, weight.data.clone()))
                norms = merged().float().square().sum(1, keepdim=True).sqrt()
                size = rise * self.rho / math.sqrt(weight.shape[1]) * norms
                weight.data += (draw(weight, key, name, randomness.normal) * size).to(weight.dtype)
            yield
        finally:
            for weight, before in saved:
                weight.data.copy_(before)


def draw(weight: Float[Tensor, "rows columns"], key: int, name: str, kind: Any) -> Float[Tensor, "rows columns"]:
    """Return numbers that depend on the key, the weight's name and the place in it."""
    rows = weight.new_ones(weight.shape[0]).long().cumsum(0) * randomness.GOLDEN
    keys = randomness.mix(rows ^ randomness.key_of(key, name))
    return kind(keys, weight[0].numel()).view_as(weight)


def _linear_weights(model: nn.Module) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, weight and a function that returns the weight the layer works with, adapter included."""
    from torch import nn

    adapted = [(name, m) for name, m in model.named_modules() if hasattr(m, "lora_A") and hasattr(m, "base_layer")]
    for name, module in adapted:
        layer: Any = module
        base = layer.get_base_layer().weight

        def merged(layer: Any = layer, base: Any = base) -> Tensor:
            delta = sum(layer.get_delta_weight(active).detach() for active in layer.active_adapters)
            return base.data + delta

        if base.ndim == 2:
            yield name, base, merged
    if not adapted:
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and module.weight.requires_grad:
                yield name, module.weight, lambda module=module: module.weight.data
