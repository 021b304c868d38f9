"""The model's predictions before fine-tuning, obtained by switching its adapter off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from neft_zoo.passes.chunked_logits import POSITIONS_AT_A_TIME, cross_entropy
from neft_zoo.passes.layers import find_backbones, last_hidden_state
from neft_zoo.passes.lm_head import LanguageHead

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


@torch.no_grad()
def starting_losses(
    model: Any, run: Callable[[], object], labels: Int[Tensor, "B L"], graded: Bool[Tensor, "B L-1"]
) -> Float[Tensor, "B L-1"]:
    """Return the negative log-likelihood of graded next tokens with the model's adapter off, 0 elsewhere.

    Args:
        model: a PEFT model.
        run: calls the model on the batch.
        labels: the batch's labels.
        graded: True where the prediction of the next token has a label.
    """
    states: list[Tensor] = []

    def note(module: nn.Module, args: tuple[object, ...], output: Any) -> None:
        states[:] = [last_hidden_state(output)]  # of several backbones, the outermost finishes last

    losses = torch.zeros(graded.shape, device=labels.device)
    with ExitStack() as stack:
        stack.enter_context(model.disable_adapter())
        stack.enter_context(_without_dropout(model))
        for backbone in find_backbones(model):
            stack.callback(backbone.register_forward_hook(note).remove)
        run()
        # Prompt tuning prepends virtual tokens, except while it is disabled.
        hidden, targets = states[0][:, -labels.shape[1] :][:, :-1][graded], labels[:, 1:][graded]
        head = LanguageHead(model)
        chunks = zip(hidden.split(POSITIONS_AT_A_TIME), targets.split(POSITIONS_AT_A_TIME), strict=True)
        losses[graded] = torch.cat([cross_entropy(head(states), goals) for states, goals in chunks])
    return losses


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    """Put a model's submodules into eval mode, but not the model itself, since trainers read its mode."""
    training = [module for module in model.modules() if module.training and module is not model]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
