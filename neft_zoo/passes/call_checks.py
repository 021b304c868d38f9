"""What a model must do with the batch of a call for its noise to be right."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neft_zoo.errors import NoiseError
from neft_zoo.noise.batch import Batch
from neft_zoo.passes.anatomy import base_model


def check_second_call(first: Batch | None, second: Batch | None, strategy: str, *, compares: bool) -> None:
    """Check the batch of a further call in one pass of several.

    Args:
        first, second: of the call before and of this one.
        strategy: its name, for the message.
        compares: whether its passes' predictions are compared, of which there must be one set a pass.

    Raises:
        NoiseError: if the strategy works with one batch a pass.
    """
    assert first is not None and second is not None  # both calls were read
    if second is not first or compares:
        one, other = (tuple(batch.input_ids.shape) for batch in (first, second))
        raise NoiseError(
            f"the loss must call the model once a pass with {strategy}, which runs several, got calls with "
            f"input_ids of shapes {one} and {other}: take a strategy of one pass, such as neft_uniform."
        )


def check_order(ids: object, batch: Batch, model: nn.Module) -> None:
    """Check that rows and columns are not exchanged (XLNet) where that changes no shape; else the shape tells it.

    Args:
        ids: what the embedding looks up.
        batch: of the call.
        model: for the message.

    Raises:
        NoiseError: if they are.
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
    """Check that a layer takes one state per token of the batch.

    Args:
        hidden: its input.
        batch: of the call, None if there is none.
        model: for the message.

    Raises:
        NoiseError: if it takes anything else.
    """
    name = type(base_model(model)).__name__
    if hidden.dim() != 3:
        raise NoiseError(f"layers must take one state per token, got {hidden.dim() - 1} dimensions in {name}.")
    states = tuple(hidden.shape[:2])
    # Virtual tokens of prompt tuning, streams, rows and columns exchanged.
    if batch is not None and states != (tokens := tuple(batch.input_ids.shape)):
        raise NoiseError(f"layers must take one state per token, got {states} states of {tokens} tokens in {name}.")
