"""The weights of linear layers: changing them for one step and restoring them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from neft_zoo.errors import NoiseError
from neft_zoo.noise import randomness
from neft_zoo.passes.changing_weights import changing_weights

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor, nn


@dataclass(frozen=True)
class LinearWeight:
    """The weight of a linear layer, its effective weight (adapter included), and the dimension of its inputs."""

    name: str
    weight: Any
    merged: Callable[[], Tensor]
    inputs: int


def linear_weights(model: nn.Module) -> Iterator[LinearWeight]:
    """Yield every weight under an active adapter, or every trainable one if there is no adapter, each once."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    adapted = list(adapted_layers(model))
    linear = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)]
    active: Any = [(name, layer) for name, layer in adapted if _active_adapters(layer)]
    layers: Any = active if adapted else [(name, m) for name, m in linear if m.weight.requires_grad]
    seen = set()  # a tied weight is yielded once
    for name, layer in layers:
        base = layer.get_base_layer() if adapted else layer
        weight = _base_weight(layer)
        if id(weight) not in seen and getattr(weight, "ndim", 2) == 2:
            seen.add(id(weight))
            yield LinearWeight(name, weight, partial(_merged, layer, weight), 0 if isinstance(base, Conv1D) else 1)


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield every layer that has a LoRA adapter, with its name."""
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and hasattr(module, "base_layer"):
            yield name, module


def _base_weight(layer: Any) -> Any:
    """Return the weight of a linear layer, under its adapter if it has one; None without one."""
    base = layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer
    return layer.get_param() if hasattr(layer, "get_param") else getattr(base, "weight", None)


def stacks_of_matrices(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the weights that hold several matrices, such as those of all experts of a layer; convolutions do not."""
    from torch import nn

    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            own = module.named_parameters(name, recurse=False)
            yield from ((key, weight) for key, weight in own if weight.ndim > 2 and len(weight) > 1)


def _more_than_matrices(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the adapted weights that are no matrices or, without an adapter, the trainable stacks of several."""
    adapted = [(name, _base_weight(layer)) for name, layer in adapted_layers(model)]
    if adapted:
        yield from ((name, weight) for name, weight in adapted if getattr(weight, "ndim", 2) != 2)
    else:
        yield from ((name, weight) for name, weight in stacks_of_matrices(model) if weight.requires_grad)


def _merged(layer: Any, weight: Tensor) -> Tensor:
    """Return a weight with the active adapters merged into it."""
    return sum((layer.get_delta_weight(name).detach() for name in _active_adapters(layer)), start=weight.data)


def _active_adapters(layer: Any) -> list[str]:
    """Return the names of a layer's active adapters."""
    known = {*getattr(layer, "lora_A", ()), *getattr(layer, "lora_embedding_A", ())}
    return [name for name in getattr(layer, "active_adapters", ()) if name in known]


def check_linear_weights(model: nn.Module, strategy: str) -> None:
    """Raise unless the model has linear weights that are trainable or have LoRA, in a type that can store a sum.

    Raises:
        NoiseError: if it has none, if one is quantized, if others hold several matrices, or for other adapters, DoRA
            among them.
    """
    for name, weight in _more_than_matrices(model):
        raise NoiseError(
            f"{strategy} needs weights that are matrices of linear layers, got shape {tuple(weight.shape)} in {name}, "
            "which it would leave as it is."
        )
    adapters = getattr(model, "peft_config", {}) if hasattr(model, "get_base_model") else {}
    if adapters and not any(True for _ in adapted_layers(model)):
        kinds = ", ".join(sorted({str(config.peft_type.value) for config in adapters.values()}))
        raise NoiseError(f"{strategy} needs linear layers that carry LoRA, or no adapter, got {kinds}.")
    for name, layer in adapted_layers(model):
        if any(getattr(layer, "use_dora", {}).get(adapter) for adapter in _active_adapters(layer)):
            raise NoiseError(
                f"use_dora must be false with {strategy}, since DoRA divides a row by its norm with the noise in it, "
                f"got true in {name}."
            )
    targets = list(linear_weights(model))
    if not targets:
        raise NoiseError("model must have linear layers that train or carry LoRA, got none.")
    for target in targets:
        kind = type(target.weight).__name__
        # A quantized weight may have a floating storage type, and a computed weight would not keep a change.
        if kind != "Parameter" or not target.weight.is_floating_point() or target.weight.element_size() < 2:
            raise NoiseError(
                f"{strategy} needs plain weights of 16 bits or more, not a quantized base, got {kind} of type "
                f"{getattr(target.weight, 'dtype', None)} in {target.name}."
            )


@contextmanager
def shifted(model: nn.Module, change: Callable[[LinearWeight], Tensor]) -> Iterator[None]:
    """Add a change to every linear weight in turn, and restore the saved weights at the end."""
    with changing_weights() as save:
        for target in linear_weights(model):
            # Saved as a copy, since adding and subtracting would drift in bf16.
            save(target.weight)
            target.weight.data += change(target).to(target.weight.dtype)
        yield


@contextmanager
def exchanged(values: Iterable[tuple[Tensor, Tensor, Tensor]]) -> Iterator[None]:
    """Replace weights by other values, rescale their gradients, and restore the saved weights at the end.

    Args:
        values: triples of a weight, its value inside the context, and the derivative of the value by the weight.
    """
    with changing_weights() as save, ExitStack() as hooks:
        for weight, value, factor in values:
            save(weight)
            weight.data.copy_(value)
            if weight.requires_grad:  # one matrix of an adapter may be frozen
                handle = weight.register_hook(lambda grad, factor=factor: grad * factor.to(grad.dtype))
                hooks.callback(handle.remove)
        yield


def draw(
    weight: Float[Tensor, "rows columns"], key: int, name: str, kind: Callable[[Tensor, int], Tensor]
) -> Float[Tensor, "rows columns"]:
    """Return random numbers that depend on the key, the weight's name and the position in the weight."""
    return kind(_keys(weight, weight.shape[0], key, name), weight[0].numel()).view_as(weight)


def draw_kept(
    weight: Float[Tensor, "rows columns"], dim: int, p: float, key: int, name: str
) -> Bool[Tensor, "#rows #columns"]:
    """Return which slices of a matrix along a dimension are kept, each with probability 1 - p."""
    kept = randomness.unit(_keys(weight, weight.shape[dim], key, name)) >= p
    return kept.unsqueeze(1 - dim)


def _keys(weight: Tensor, count: int, key: int, name: str) -> Int[Tensor, " count"]:
    places = weight.new_ones(count).long().cumsum(0) * randomness.GOLDEN
    return randomness.mix(places ^ randomness.key_of(key, name))
