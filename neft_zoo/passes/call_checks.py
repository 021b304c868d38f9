"""Checks that a model uses the batch of a call in the way that noise requires."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neft_zoo.errors import NoiseError
from neft_zoo.noise.batch import Batch
from neft_zoo.passes.anatomy import base_model


def check_second_call(first: Batch | None, second: Batch | None, strategy: str, *, compares: bool) -> None:
    """Check the batch of a further model call within one pass of a strategy of several passes.

    Args:
        first, second: the batches of the previous call and of this one.
        strategy: its name, for the message.
        compares: whether the predictions of its passes are compared, which requires one call per pass.

    Raises:
        NoiseError: if the strategy requires one batch per pass.
    """
    assert first is not None and second is not None  # both calls were read
    if second is not first or compares:
        one, other = (tuple(batch.input_ids.shape) for batch in (first, second))
        raise NoiseError(
            f"the loss must call the model once a pass with {strategy}, which runs several, got calls with "
            f"input_ids of shapes {one} and {other}: take a strategy of one pass, such as neft_uniform."
        )


def check_order(ids: object, batch: Batch, model: nn.Module) -> None:
    """Check that the model does not transpose batch and sequence (XLNet) where the shape cannot show it.

    Args:
        ids: the ids that the embedding looks up.
        batch: the batch of the call.
        model: for the message.

    Raises:
        NoiseError: if they are transposed.
    """
    if torch.compiler.is_compiling() or not isinstance(ids, Tensor) or ids.shape != batch.input_ids.shape:
        return
    if ids.dim() != 2 or ids.shape[0] != ids.shape[1]:
        return
    known = batch.input_ids.to(ids.device)
    if torch.equal(ids, known.T) and not torch.equal(ids, known):
        raise NoiseError(
            f"{type(base_model(model)).__name__} must look up the token ids that it is called with, got them "
            "with rows and columns exchanged."
        )


def check_states(hidden: Tensor, batch: Batch | None, model: nn.Module) -> None:
    """Check that a layer's input has one state per token of the batch.

    Args:
        hidden: the layer's input.
        batch: the batch of the call, or None.
        model: for the message.

    Raises:
        NoiseError: if it has another shape.
    """
    name = type(base_model(model)).__name__
    if hidden.dim() != 3:
        raise NoiseError(f"layers must take one state per token, got {hidden.dim() - 1} dimensions in {name}.")
    states = tuple(hidden.shape[:2])
    # For example virtual tokens of prompt tuning, parallel streams, or transposed batch and sequence.
    if batch is not None and states != (tokens := tuple(batch.input_ids.shape)):
        raise NoiseError(f"layers must take one state per token, got {states} states of {tokens} tokens in {name}.")
