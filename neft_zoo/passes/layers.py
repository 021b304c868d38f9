"""The modules that hidden states pass through, by structure and not by name: backbone and decoder layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from neft_zoo.errors import NoiseError
from neft_zoo.passes.anatomy import base_model, find_embedding, find_head, find_table, text_config

Lists: TypeAlias = Mapping[str, nn.ModuleList]  # keyed by their name in the model


def find_backbones(model: nn.Module) -> list[nn.Module]:
    """Return the modules that contain the decoder layers but not the LM head, outermost first.

    The head may read the output of any of them (in OPT, of an inner one). Among those that a forward pass calls, the
    outermost finishes last.

    Raises:
        NoiseError: if the model has no backbone separate from its head.
    """
    base, head = base_model(model), find_head(model)
    inner = [*_candidates(model).values()] or [find_embedding(model)]
    around = [_modules_around(base, module) for module in inner]
    around_head = [base] if head is None else _modules_around(base, head)
    shared = [module for module in around[0] if all(module in other for other in around)]
    backbones = [module for module in shared if module not in around_head]
    if not backbones:
        raise NoiseError(f"model must have a backbone under its head, got {type(base).__name__}, which has none.")
    return backbones


def last_hidden_state(output: Any) -> Tensor:
    """Return the last hidden state in the output of a backbone."""
    return output.last_hidden_state if hasattr(output, "last_hidden_state") else _first(output)


def find_layers(model: nn.Module) -> list[nn.Module]:
    """Return the decoder layers in order.

    Raises:
        NoiseError: if they cannot be identified.
    """
    lists = _find_lists(model)
    if len(lists) == 1:
        return list(next(iter(lists.values())))
    told = f"{len(lists)} ({', '.join(lists)})" if lists else "none"
    raise NoiseError(
        "model must have a list of decoder layers, each of which is given what the one before returns, got "
        f"{type(base_model(model)).__name__}, which has {told}."
    )


def states_given(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return the hidden states among the arguments of a decoder layer: the first tensor."""
    return args[0] if args else kwargs[_name_of_states(kwargs)]


def with_states(states: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the arguments of a decoder layer with its hidden states replaced."""
    if args:
        return (states, *args[1:]), kwargs
    return args, {**kwargs, _name_of_states(kwargs): states}


class LayerHook:
    """The pre-hook of one decoder layer.

    Args:
        at_layer: returns other hidden states for those of the layer with this number, or None to leave them.
        index: the layer's number.
    """

    def __init__(self, at_layer: Callable[[Tensor, int], Tensor | None], index: int) -> None:
        self.at_layer, self.index = at_layer, index

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        noisy = self.at_layer(states_given(args, kwargs), self.index)
        return None if noisy is None else with_states(noisy, args, kwargs)


def _name_of_states(kwargs: Mapping[str, Any]) -> str:
    tensors = [name for name, value in kwargs.items() if isinstance(value, Tensor)]
    return "hidden_states" if "hidden_states" in tensors else tensors[0]


def _first(output: Any) -> Any:
    """Return a module's output, or the first of several outputs."""
    return output[0] if isinstance(output, tuple | list) else output


def _find_lists(model: nn.Module) -> Lists:
    """Return the lists of modules that are decoder layers: exactly one if they can be identified.

    Structure is checked first, since it costs nothing. A forward pass is run only for modules that are not
    transformers' own layers, and to choose between several lists at the same depth.
    """
    lists = _candidates(model)
    told = len(lists) == 1 and all(map(_are_of_transformers, lists.values()))
    return lists if told or not lists else _that_chain(model, lists)


def _candidates(model: nn.Module) -> Lists:
    """Return the lists that may be the decoder layers, restricted to transformers' own layers if there are any.

    Vision and speech towers inside a language model are nested deeper than its own layers (Phi-4 multimodal).
    """
    lists = _lists_of_layers(model)
    if not any(map(_are_of_transformers, lists.values())):
        return lists
    lists = {name: layers for name, layers in lists.items() if _are_of_transformers(layers)}
    depth = min(name.count(".") for name in lists)
    return {name: layers for name, layers in lists.items() if name.count(".") == depth}


def _lists_of_layers(model: nn.Module) -> Lists:
    """Return the lists closest to the embedding that have the config's length or hold transformers' layers.

    The config's number of layers can differ from the number of modules (LongCat-Flash counts two per module). Without
    such a number, the whole model is searched.
    """
    base = base_model(model)
    count = getattr(text_config(base), "num_hidden_layers", None)
    scopes = [base] if count is None else _modules_around(base, find_embedding(model))[::-1]
    names = {module: name for name, module in base.named_modules()}
    for scope in scopes:
        within = {names[m]: m for m in scope.modules() if isinstance(m, nn.ModuleList) and len(m)}
        outer = {name: m for name, m in within.items() if not any(name.startswith(f"{other}.") for other in within)}
        found = {name: m for name, m in outer.items() if len(m) == count}
        found = found or {name: m for name, m in outer.items() if _are_of_transformers(m)}
        if found:
            return found
    return {}


def _are_of_transformers(layers: nn.ModuleList) -> bool:
    """Return whether all modules are layers that transformers checkpoints; FSDP may have wrapped each of them."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return all(
        any(isinstance(module, GradientCheckpointingLayer) for module in (layer, *layer.children()))
        for layer in layers
    )


def _modules_around(base: nn.Module, inner: nn.Module) -> list[nn.Module]:
    """Return the modules that contain a module, the model first, without module lists."""
    path = next((name for name, module in base.named_modules() if module is inner), "").split(".")[:-1]
    around = [base.get_submodule(".".join(path[:depth])) for depth in range(len(path) + 1)]
    return [module for module in around if not isinstance(module, nn.ModuleList)]


def _that_chain(model: nn.Module, lists: Lists) -> Lists:
    """Return the lists in which each module receives the output of the one before, in a forward pass of two tokens."""
    calls: dict[str, list[tuple[Any, Any]]] = {name: [] for name in lists}

    def note(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        calls[name].append((states_given(args, kwargs), _first(output)))

    hooks = [
        layer.register_forward_hook(partial(note, name), with_kwargs=True)
        for name, layers in lists.items()
        for layer in layers
    ]
    try:
        with torch.no_grad(), _in_eval_mode(model):
            model(input_ids=torch.zeros(1, 2, dtype=torch.long, device=find_table(model).device), use_cache=False)
    except Exception:  # any error: a model may need other inputs or have no weights yet
        return {}
    finally:
        for hook in hooks:
            hook.remove()
    chained = (name for name, seen in calls.items() if seen and all(b[0] is a[1] for a, b in pairwise(seen)))
    return {name: lists[name] for name in chained}


@contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, so that a forward pass does not advance the random state."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
