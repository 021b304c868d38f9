"""Gathering weights sharded by FSDP2 or ZeRO-3, for reading, for changing and for the backward pass.

ZeRO-3 marks a sharded weight by an attribute `ds_id`; FSDP2 makes it a DTensor, and a method of the module sets when
it is freed.
https://github.com/deepspeedai/DeepSpeed/blob/v0.19.8/deepspeed/runtime/zero/partition_parameters.py
https://docs.pytorch.org/docs/2.13/distributed.fsdp.fully_shard.html
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from neft_zoo.passes.anatomy import find_head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn


def is_unsharded(weight: Any) -> bool:
    """Return whether this process holds the full matrix: not sharded by FSDP2, or gathered by ZeRO-3."""
    return getattr(weight, "ndim", 0) == 2 and type(weight.data).__name__ != "DTensor"


def is_local(weight: object) -> bool:
    """Return whether a matrix is never sharded, so that its gradient can be computed outside of autograd."""
    return is_unsharded(weight) and getattr(weight, "is_leaf", False) and not hasattr(weight, "ds_id")


def gathers_late(model: nn.Module) -> bool:
    """Return whether FSDP2 shards the model or its head, and so gathers it in every pass."""
    return any(hasattr(unit, "set_reshard_after_backward") for unit in (find_head(model), model))


def gathered(weights: Sequence[Any], changed: bool = False) -> AbstractContextManager[Any]:
    """Return a context in which every process holds the full weights, if ZeRO-3 has sharded them.

    Args:
        weights: the weights to read or to change in place.
        changed: whether changes made by rank 0 are kept.
    """
    split = [weight for weight in weights if hasattr(weight, "ds_id")]
    if not split:
        return nullcontext()
    import deepspeed  # must be installed, since it made these weights

    return deepspeed.zero.GatheredParameters(split, modifier_rank=0 if changed else None)


def broadcast_from_rank_0(table: Tensor) -> Tensor:
    """Return the weight that rank 0 has loaded; FSDP may leave it empty on other ranks until it shards the model."""
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
    """Make FSDP2 gather the head and the last norm when a gradient reaches the last hidden states.

    FSDP2 gathers freed weights when a gradient enters through the model's outputs. For an objective that reads hidden
    states, gradients enter behind the outputs, and the norm would be differentiated with freed memory.
    """
    units: Any = [unit for unit in (find_head(model), model) if hasattr(unit, "set_reshard_after_backward")]
    if units and hidden.requires_grad:
        hidden.register_hook(lambda gradient: [unit.unshard() for unit in units] and None)
