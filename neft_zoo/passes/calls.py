"""Arguments of a model call by name, however they are passed."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

from torch import Tensor, nn

from neft_zoo.passes.anatomy import base_model


def arguments_of(module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name, without an `input_ids` that is not a tensor (B, L).

    A model for multiple choice is called with the token ids of all choices (B, C, L), and calls its inner model with
    one row per choice: https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/bert/modeling_bert.py

    TRL's forward redirection calls the model with another function's arguments, some of which are modules and
    dictionaries: https://github.com/huggingface/trl/blob/v1.16.0/trl/models/utils.py

    Args:
        module: the module that is called.
        args, kwargs: the arguments of the call.
    """
    named = {**dict(zip(_positional(module), args, strict=False)), **kwargs}
    if not hasattr(module, "get_input_embeddings"):
        # A module that wraps a model may take its inputs as one mapping, as in sentence-transformers.
        named = next((dict(value) for value in args if isinstance(value, Mapping)), named)
    if "input_ids" not in named and args and isinstance(args[0], Tensor) and not args[0].is_floating_point():
        named["input_ids"] = args[0]  # a custom model may name its first argument otherwise
    ids = named.get("input_ids")
    if not isinstance(ids, Tensor) or ids.dim() != 2:
        named.pop("input_ids", None)
    return named


def takes_token_ids(module: nn.Module) -> bool:
    """Return whether a module can be called with `input_ids`."""
    return "input_ids" in inspect.signature(type(module).forward).parameters


def _positional(module: nn.Module) -> tuple[str, ...]:
    """Return the names of a module's positional arguments, or those of the model inside if PEFT forwards them."""
    # Read from the class: TRL, accelerate and torch.compile replace an instance's `forward`.
    return _names(type(module)) or _names(type(base_model(module)))


@cache
def _names(cls: type[nn.Module]) -> tuple[str, ...]:
    _, *parameters = inspect.signature(cls.forward).parameters.values()
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return ()
    return tuple(each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD))
