"""The model's predictions before fine-tuning, obtained by switching its adapter off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from neft_zoo.errors import NoiseError, shown
from neft_zoo.passes.anatomy import base_model
from neft_zoo.passes.chunked_logits import POSITIONS_AT_A_TIME, cross_entropy
from neft_zoo.passes.layers import find_backbones, last_hidden_state
from neft_zoo.passes.lm_head import LanguageHead
from neft_zoo.passes.model_outputs import ModelOutputs

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

# LoRA's starts that leave the base as it is. Others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA, KaSA)
# take the adapter out of it.
# https://github.com/huggingface/peft/blob/v0.21.2/src/peft/tuners/lora/layer.py
STARTS_BESIDE_THE_BASE = (True, False, "gaussian", "eva", "orthogonal", "mica")


def check_starting_model(model: Any) -> None:
    """Raise unless a PEFT model with its adapter off is the model that training begins with.

    Raises:
        NoiseError: if the adapter was taken out of the base weights, if base weights are trained too, or if an active
            adapter is frozen, and so a part of the starting model.
    """
    for config in model.peft_config.values():
        start = "kasa" if getattr(config, "kasa_config", None) else getattr(config, "init_lora_weights", True)
        if (start.lower() if isinstance(start, str) else start) not in STARTS_BESIDE_THE_BASE:
            raise NoiseError(
                "init_lora_weights must leave the base as it is where the model without its adapter is the starting "
                f"model (true, false, gaussian, eva, orthogonal or mica), got {shown(start)}."
            )
    _check_active_adapters(model)
    prompts = {id(weight) for weight in getattr(model, "prompt_encoder", nn.ModuleList()).parameters()}
    with adapter_off(model):  # PEFT freezes what it switches off
        trained = (n for n, w in model.named_parameters() if w.requires_grad and id(w) not in prompts)
        name = next(trained, None)
    if name is not None:
        raise NoiseError(
            "weights of the base must be frozen where the model without its adapter is the starting model, got "
            f"{name}, which trains: set bias to none, or take modules_to_save."
        )


def _check_active_adapters(model: Any) -> None:
    active = getattr(model, "active_adapters", None) or []
    trained = [name.split(".") for name, weight in model.named_parameters() if weight.requires_grad]
    for adapter in active if len(active) > 1 else []:
        if not any(adapter in parts for parts in trained):
            raise NoiseError(
                "all active adapters must train where the model without them is the starting model, got "
                f"{shown(adapter)}, which is frozen: merge it into the base."
            )


@contextmanager
def adapter_off(model: Any) -> Iterator[None]:
    """Switch a PEFT model's adapter off; what was frozen stays so, while PEFT would train all of it afterwards."""
    trains = [(weight, weight.requires_grad) for weight in model.parameters()]
    try:
        with model.disable_adapter():
            yield
    finally:
        for weight, value in trains:
            weight.requires_grad_(value)


@torch.no_grad()
def starting_losses(
    outputs: ModelOutputs, run: Callable[[], object], labels: Int[Tensor, "B L"], graded: Bool[Tensor, "B L-1"]
) -> Float[Tensor, "B L-1"]:
    """Return the negative log-likelihood of graded next tokens with the model's adapter off, 0 elsewhere.

    Args:
        outputs: of a PEFT model.
        run: calls the model on the batch.
        labels: the batch's labels.
        graded: True where the prediction of the next token has a label.

    Raises:
        NoiseError: if the model predicts something else than the next token by its LM head.
    """
    model: Any = outputs.model
    states: list[Tensor] = []

    def note(module: nn.Module, args: tuple[object, ...], output: Any) -> None:
        states[:] = [last_hidden_state(output)]  # of several backbones, the outermost finishes last

    def check(module: nn.Module, args: tuple[object, ...], output: Any) -> None:
        outputs.check_next_tokens(output, states[0][:, -labels.shape[1] :], labels)

    losses = torch.zeros(graded.shape, device=labels.device)
    with ExitStack() as stack:
        stack.enter_context(adapter_off(model))
        stack.enter_context(_without_dropout(model))
        for backbone in find_backbones(model):
            stack.callback(backbone.register_forward_hook(note).remove)
        stack.callback(base_model(model).register_forward_hook(check).remove)
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
