"""Weight dropout for a step: dropped weights are replaced by their starting values, or by 0."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from neft_zoo.errors import NoiseError
from neft_zoo.noise.schedules import check_number
from neft_zoo.passes.linear_weights import (
    LinearWeight,
    adapted_layers,
    check_linear_weights,
    draw_kept,
    exchanged,
    linear_weights,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

ALMOST_ONE = 0.999999
# Attribute of a weight: its value before training. Kept on the weight, so that it is freed with the model.
START = "value_before_training"


@dataclass(frozen=True)
class Mixout:
    """Each step: weights of linear layers revert to their pretrained values with probability p per input.

    The weight is ((1 - m) W0 + m W - p W0) / (1 - p), with m = 0 with probability p, drawn once per input of a layer.
    So its mean is W, and only inputs with m = 1 pass a gradient, divided by 1 - p.
    """

    p: float

    every_step: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("p", self.p, 0, ALMOST_ONE)

    def check(self, model: nn.Module) -> None:
        if any(True for _ in adapted_layers(model)):
            raise NoiseError("mixout must train the weights themselves, got a LoRA adapter: set lora_dropout instead.")
        check_linear_weights(model, "mixout")
        for target in _untied(model):
            if not hasattr(target.weight, START):  # on resume, this is the model that the run started from
                self._remember(target)

    def begin(self, model: nn.Module, key: int) -> None:
        for target in _untied(model):
            self._remember(target)

    def _remember(self, target: LinearWeight) -> None:
        setattr(target.weight, START, target.weight.detach().clone())

    def around(self, model: nn.Module, key: int, progress: float) -> AbstractContextManager[None]:
        return exchanged(self._mixed(target, key) for target in _untied(model))

    def _mixed(self, target: LinearWeight, key: int) -> tuple[Tensor, Tensor, Tensor]:
        weight = target.weight
        if not hasattr(weight, START):
            raise NoiseError(
                f"mixout needs the value before training of every weight, got none of {target.name}: let all weights "
                "train, and resize the embeddings, before the noise is attached."
            )
        start = getattr(weight, START).to(weight.device).float()  # `model.to` moves only the weight
        kept = draw_kept(weight, target.inputs, self.p, key, target.name).float() / (1 - self.p)
        return weight, start + kept * (weight.data.float() - start), kept


@dataclass(frozen=True)
class LoraMatrixDropout:
    """Each step: inputs of A and outputs of B are dropped with probability p, and the others divided by 1 - p."""

    p: float

    every_step: ClassVar[bool] = True
    of_adapter: ClassVar[bool] = True  # leaves the base as it is, also for a reference model

    def __post_init__(self) -> None:
        check_number("p", self.p, 0, ALMOST_ONE)

    def check(self, model: nn.Module) -> None:
        found = [weight for _, weight, _ in _adapters(model)]
        # AdaLoRA's matrices are no layers, and it prunes their ranks itself; others may be convolutions or blocks.
        if not found or any(weight is None for weight in found):
            kinds = sorted({type(layer).__name__ for _, layer in adapted_layers(model)})
            raise NoiseError(f"model must carry LoRA on linear layers, got {', '.join(kinds) or 'none'}.")
        places = [weight.untyped_storage().data_ptr() for weight in found if weight.numel() and not weight.is_meta]
        if len(set(places)) < len(places):  # a drop in one would be a drop in the other, unseen by its gradient
            raise NoiseError("ensure_weight_tying must be false with lora_matrix_dropout, got adapters that are tied.")

    def begin(self, model: nn.Module, key: int) -> None:
        """Do nothing before training."""

    def around(self, model: nn.Module, key: int, progress: float) -> AbstractContextManager[None]:
        return exchanged(self._dropped(*found, key) for found in _adapters(model))

    def _dropped(self, name: str, weight: Tensor, dim: int, key: int) -> tuple[Tensor, Tensor, Tensor]:
        kept = draw_kept(weight, dim, self.p, key, name).to(weight.dtype) / (1 - self.p)
        return weight, weight.data * kept, kept


def _untied(model: nn.Module) -> Iterator[LinearWeight]:
    """Yield the linear weights that are not tied to an embedding."""
    from torch import nn

    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return (target for target in linear_weights(model) if id(target.weight) not in tables)


def _adapters(model: nn.Module) -> Iterator[tuple[str, Any, int]]:
    """Yield A and B of every active adapter, each once: name, weight, and the dimension that is not the rank."""
    seen = set()  # tied layers may share an adapter
    for name, layer in adapted_layers(model):
        for adapter in layer.active_adapters:
            for side, weight, dim in _sides(layer, adapter):
                if weight is None or id(weight) not in seen:
                    seen.add(id(weight))
                    yield f"{name}.{side}.{adapter}", weight, dim


def _sides(layer: Any, adapter: str) -> Iterator[tuple[str, Any, int]]:
    """Yield A and B of a layer's adapter, if it has that one: A or B, weight or None, and dimension."""
    from torch import nn

    if adapter in layer.lora_A:
        for side, matrices, dim in (("A", layer.lora_A, 1), ("B", layer.lora_B, 0)):
            yield side, matrices[adapter].weight if isinstance(matrices[adapter], nn.Linear) else None, dim
    elif adapter in getattr(layer, "lora_embedding_A", ()):
        yield "A", layer.lora_embedding_A[adapter], 1
        yield "B", layer.lora_embedding_B[adapter], 0
