"""Noise on the weights: once before training, or around every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from neft_zoo.errors import NoiseError
from neft_zoo.noise import randomness
from neft_zoo.noise.schedules import check_number

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn


@runtime_checkable
class WeightNoise(Protocol):
    """A change of a model's weights, once before training or around every step.

    Attributes:
        every_step: whether the weights are changed at every step.
    """

    every_step: ClassVar[bool]

    def check(self, model: nn.Module) -> None:
        """Raise if the model has no weights that can be changed in this way."""

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
    """Each step: W += N(0, (f * rho * |row| / sqrt(n_in))^2), f rising from 0 to 1 as half a cosine, then W as before.

    Under LoRA, W are the base weights of the adapted layers and |row| is the norm of base plus adapter; without an
    adapter, W are the trainable matrices of linear layers.

    Args:
        rho: norm of a row's noise over the row's norm at the end of training (dimensionless, >= 0).
    """

    rho: float

    every_step: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("rho", self.rho)

    def check(self, model: nn.Module) -> None:
        targets = list(_linear_weights(model))
        if not targets:
            raise NoiseError("model must have linear layers that train or carry LoRA, got none.")
        for target in targets:
            kind = type(target.weight).__name__
            # A quantized weight may be stored in a floating type, and a computed one would not keep what is added.
            if kind != "Parameter" or not target.weight.is_floating_point() or target.weight.element_size() < 2:
                raise NoiseError(
                    f"flat_lora needs plain weights of 16 bits or more, not a quantized base, got {kind} of type "
                    f"{getattr(target.weight, 'dtype', None)} in {target.name}."
                )

    def begin(self, model: nn.Module, key: int) -> None:
        """Leave the weights as they are: the noise comes with every step."""

    @contextmanager
    def around(self, model: nn.Module, key: int, progress: float) -> Iterator[None]:
        rise = (1 - math.cos(math.pi * progress)) / 2
        saved = []
        try:
            for target in _linear_weights(model):
                # Adding and subtracting would drift in bf16, hence a copy.
                weight = target.weight
                saved.append((weight, weight.data.clone()))
                size = rise * self.rho * target.merged().float().square().mean(target.inputs, keepdim=True).sqrt()
                weight.data += (draw(weight, key, target.name, randomness.normal) * size).to(weight.dtype)
            yield
        finally:
            for weight, before in saved:
                weight.data.copy_(before)


def draw(
    weight: Float[Tensor, "rows columns"], key: int, name: str, kind: Callable[[Tensor, int], Tensor]
) -> Float[Tensor, "rows columns"]:
    """Return random numbers of a weight's shape; key, name and position determine each of them."""
    rows = weight.new_ones(weight.shape[0]).long().cumsum(0) * randomness.GOLDEN
    keys = randomness.mix(rows ^ randomness.key_of(key, name))
    return kind(keys, weight[0].numel()).view_as(weight)


@dataclass(frozen=True)
class _Linear:
    """The weight of a linear layer, the weight it works with (adapter included) and the dimension of its inputs."""

    name: str
    weight: Any
    merged: Callable[[], Tensor]
    inputs: int


def _linear_weights(model: nn.Module) -> Iterator[_Linear]:
    """Yield every weight of the adapted layers, without an adapter every one that trains, each once."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    adapted = [(name, m) for name, m in model.named_modules() if hasattr(m, "lora_A") and hasattr(m, "base_layer")]
    linear = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)]
    layers: Any = adapted or [(name, m) for name, m in linear if m.weight.requires_grad]
    seen = set()  # a tied weight is one weight
    for name, layer in layers:
        base = layer.get_base_layer() if adapted else layer
        weight: Any = layer.get_param() if hasattr(layer, "get_param") else getattr(base, "weight", None)
        if id(weight) not in seen and getattr(weight, "ndim", 2) == 2:
            seen.add(id(weight))
            yield _Linear(name, weight, partial(_merged, layer, weight), 0 if isinstance(base, Conv1D) else 1)


def _merged(layer: Any, weight: Tensor) -> Tensor:
    """Return a weight with what the active adapters add to it."""
    adapters = {*getattr(layer, "lora_A", ()), *getattr(layer, "lora_embedding_A", ())}
    active = [name for name in getattr(layer, "active_adapters", ()) if name in adapters]
    return sum((layer.get_delta_weight(name).detach() for name in active), start=weight.data)
