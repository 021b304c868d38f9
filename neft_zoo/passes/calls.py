"""The arguments of a model's call, by name, however they are passed."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

from torch import Tensor, nn

from neft_zoo.passes.anatomy import base_model


def arguments_of(module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name; what is no row of token ids per text under `input_ids` is left out.

    A model for multiple choice is called with those of all choices (B, C, L), and calls the model inside of it with a
    row for each: https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/bert/modeling_bert.py

    TRL's forward redirection calls a model with arguments of another function in place of its own, of which some are
    modules and dictionaries: https://github.com/huggingface/trl/blob/v1.16.0/trl/models/utils.py

    Args:
        module: what is called.
        args, kwargs: what it is called with.
    """
    named = {**dict(zip(_positional(module), args, strict=False)), **kwargs}
    if not hasattr(module, "get_input_embeddings"):
        # A module made around a model may take what the model takes in one mapping, as sentence-transformers' do.
        named = next((dict(value) for value in args if isinstance(value, Mapping)), named)
    if "input_ids" not in named and args and isinstance(args[0], Tensor) and not args[0].is_floating_point():
        named["input_ids"] = args[0]  # a model of one's own may have another name for them
    ids = named.get("input_ids")
    if not isinstance(ids, Tensor) or ids.dim() != 2:
        named.pop("input_ids", None)
    return named


def takes_token_ids(module: nn.Module) -> bool:
    """Return whether a module can be called with `input_ids`."""
    return "input_ids" in inspect.signature(type(module).forward).parameters


def _positional(module: nn.Module) -> tuple[str, ...]:
    """Return the names of a module's positional arguments, those of the model inside where PEFT passes them on."""
    # An instance's `forward` may be replaced, by TRL, accelerate and torch.compile among others.
    return _names(type(module)) or _names(type(base_model(module)))


@cache
def _names(cls: type[nn.Module]) -> tuple[str, ...]:
    _, *parameters = inspect.signature(cls.forward).parameters.values()
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return ()
    return tuple(each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD))
