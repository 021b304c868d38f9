"""Quantization: test loss after rounding the weights of linear layers to few bits."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from neft_zoo.errors import NoiseError
from neft_zoo.evaluation.effect_results import LossUnder, Quantization
from neft_zoo.evaluation.losses import score, summary
from neft_zoo.evaluation.subject import Row, Subject
from neft_zoo.passes.anatomy import find_head
from neft_zoo.passes.linear_weights import stacks_of_matrices

if TYPE_CHECKING:
    from jaxtyping import Float
    from transformers import PreTrainedModel

GROUP = 64
# Takes weights (rows, inputs) and returns them rounded.
Rounding: TypeAlias = Callable[[Tensor], Tensor]


def quantization(subject: Subject, rows: Sequence[Row]) -> Quantization:
    """Return the loss of records with rounded weights.

    Embeddings and LM head are not rounded, as in common 4-bit formats. Adapters are merged into the weights before
    rounding, as for deployment. All weights are restored bit for bit.

    Args:
        subject: the model.
        rows: tokenized records.

    Raises:
        NoiseError: if the weights are already quantized.
    """
    layers = linear_layers(subject.model)
    clean = summary(score(subject, rows, what="clean")).loss

    def under(name: str, rounding: Rounding) -> LossUnder:
        with rounded_weights(subject.model, rounding):
            loss = summary(score(subject, rows, what=name)).loss
        return LossUnder(loss, loss - clean)

    has_nf4 = importlib.util.find_spec("bitsandbytes") is not None
    return Quantization(
        clean_loss=clean,
        group=GROUP,
        layers=len(layers),
        rtn4=under("4 bits", partial(round_to_nearest, bits=4)),
        rtn3=under("3 bits", partial(round_to_nearest, bits=3)),
        nf4=under("NF4", round_to_nf4) if has_nf4 else None,
    )


def round_to_nearest(weight: Float[Tensor, "N K"], bits: int) -> Float[Tensor, "N K"]:
    """Return weights rounded to the nearest of 2^bits evenly spaced values over each group's range."""
    width = weight.shape[1]
    padded = functional.pad(weight.float()[None], (0, -width % GROUP), mode="replicate")[0]
    groups = padded.unflatten(1, (-1, GROUP))
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    step = (high - low) / (2**bits - 1)
    levels = ((groups - low) / step.where(step > 0, 1.0)).round()
    return (low + levels * step).flatten(1)[:, :width].to(weight.dtype)


def round_to_nf4(weight: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
    """Return weights rounded to bitsandbytes' 4-bit NormalFloat, in blocks of 64."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(weight.contiguous(), blocksize=GROUP, quant_type="nf4")
    return dequantize_4bit(packed, state).to(weight.dtype)


@contextmanager
def rounded_weights(model: PreTrainedModel, rounding: Rounding) -> Iterator[None]:
    """Round the weights of linear layers inside the context, and restore them bit for bit afterwards."""
    layers = linear_layers(model)
    # The copies are on the CPU, since the model alone may fill the accelerator's memory.
    adapters = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    unmerged = [adapter for adapter in adapters if not adapter.merged and hasattr(adapter, "merge")]
    changed = [*layers, *(adapter.get_base_layer() for adapter in unmerged)]  # unmerging is not exact
    parameters = {parameter for module in changed for parameter in module.parameters(recurse=False)}
    saved = [(parameter, parameter.detach().to("cpu", copy=True)) for parameter in parameters]
    try:
        for adapter in unmerged:
            adapter.merge()
        with torch.no_grad():
            for layer in layers:
                # transformers' Conv1D (GPT-2) stores its weight transposed.
                weight = layer.weight.T if isinstance(layer, Conv1D) else layer.weight
                rounded = rounding(weight.detach())
                layer.weight.copy_(rounded.T if isinstance(layer, Conv1D) else rounded)
        yield
    finally:
        for adapter in unmerged:
            if adapter.merged:
                adapter.unmerge()
        with torch.no_grad():
            for parameter, value in saved:
                parameter.copy_(value)


def linear_layers(model: PreTrainedModel) -> list[nn.Linear | Conv1D]:
    """Return the linear layers of the model itself, without its LM head and adapter layers.

    Raises:
        NoiseError: if their weights are already quantized, or if most weights are elsewhere, as in stacked experts.
    """
    adapters = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    of_adapters = {module for adapter in adapters for module in adapter.modules()}
    of_adapters -= {adapter.get_base_layer() for adapter in adapters}
    head = find_head(model)
    of_head = set() if head is None else {*head.modules()}  # PEFT may wrap it
    layers = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear | Conv1D) and module not in of_head | of_adapters
    ]
    quantized = next((layer.weight.dtype for layer in layers if not layer.weight.dtype.is_floating_point), None)
    if quantized is not None:
        raise NoiseError(f"quantization needs weights in floating point, got {quantized}: they are quantized already.")
    stacked = next(stacks_of_matrices(model), None)
    if stacked is not None:
        raise NoiseError(
            f"quantization needs a model whose weights are in linear layers, got {stacked[0]}, which stacks them."
        )
    return layers
