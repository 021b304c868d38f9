"""Weights that are split over processes: reading them whole, and having them back in time."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from neft_zoo.passes.anatomy import find_head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn


def is_unsharded(weight: Any) -> bool:
    """Return whether a weight is on this process as a whole: not sharded (FSDP2) nor gathered later (ZeRO-3)."""
    return getattr(weight, "ndim", 0) == 2 and type(weight.data).__name__ != "DTensor"


def is_local(weight: object) -> bool:
    """Return whether a weight is all on this process and stays there, so that its gradient can be made by hand."""
    return is_unsharded(weight) and getattr(weight, "is_leaf", False) and not hasattr(weight, "ds_id")


def gathers_late(model: nn.Module) -> bool:
    """Return whether FSDP2 frees and gathers the model or its head."""
    return any(hasattr(unit, "set_reshard_after_backward") for unit in (find_head(model), model))


def gathered(weights: Sequence[Any], changed: bool = False) -> AbstractContextManager[Any]:
    """Return a context in which every process holds these weights as a whole, where ZeRO-3 has split them.

    Args:
        weights: what is read, or changed in place.
        changed: keep what rank 0 has changed.
    """
    split = [weight for weight in weights if hasattr(weight, "ds_id")]
    if not split:
        return nullcontext()
    import deepspeed  # it made these weights, so it is installed

    return deepspeed.zero.GatheredParameters(split, modifier_rank=0 if changed else None)


def broadcast_from_rank_0(table: Tensor) -> Tensor:
    """Return a weight as rank 0 has loaded it: FSDP may leave the others empty until it splits the model."""
    import torch
    from accelerate import PartialState
    from transformers.integrations import is_fsdp_enabled  # pyright: ignore[reportPrivateImportUsage]

    if not is_fsdp_enabled():
        return table
    place = PartialState().device
    copy = torch.empty_like(table, device=place) if table.is_meta else table.detach().to(place, copy=True)
    torch.distributed.broadcast(copy, src=0)
    return copy.cpu() if table.is_meta else copy.to(table.device)


def gather_in_backward(model: nn.Module, hidden: Tensor) -> None:
    """Have FSDP2 gather head and last norm when a gradient arrives at the last hidden states.

    FSDP2 gathers what it has freed when gradients enter through the model's own outputs. An objective that reads
    hidden states lets them in behind these, and the norm would be differentiated with memory that was given back.
    """
    units: Any = [unit for unit in (find_head(model), model) if hasattr(unit, "set_reshard_after_backward")]
    if units and hidden.requires_grad:
        hidden.register_hook(lambda gradient: [unit.unshard() for unit in units] and None)
