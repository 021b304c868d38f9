"""Checks, before training, that a trainer and a strategy are compatible."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.tensor import DTensor

from neft_zoo.errors import NoiseError, NoiseWarning
from neft_zoo.noise.additive import TokenEdit
from neft_zoo.passes.anatomy import base_model
from neft_zoo.passes.torch_internals import averages_gradients
from neft_zoo.registry.strategy import Strategy
from neft_zoo.training.hf_internals import compares_token_ids, other_use_of_model
from neft_zoo.training.ranges import check_ranges
from neft_zoo.training.stock_noise import check_alone

if TYPE_CHECKING:
    from accelerate.state import AcceleratorState
    from transformers import Trainer, TrainingArguments


def check_engine(
    args: TrainingArguments, processes: AcceleratorState, strategy: Strategy, replaces_stock: bool = False
) -> None:
    """Raise for trainer settings under which the noise would be wrong.

    Args:
        args: the trainer's arguments.
        processes: the state of the accelerator that the trainer runs in.
        strategy: the trainer's strategy.
        replaces_stock: whether the strategy replaces transformers' own noise, which is then switched off.

    Raises:
        NoiseError: for a number out of range, two noises at once, a split sequence, sharded weights that would change
            within a step, or several passes with reentrant checkpointing or an optimizer that steps in the backward.
    """
    check_ranges(vars(args))
    if not replaces_stock:
        check_alone(args.neftune_noise_alpha, strategy.name)
    settings = args.gradient_checkpointing_kwargs
    reentrant = isinstance(settings, dict) and settings.get("use_reentrant")
    if args.gradient_checkpointing and reentrant and strategy.objective.passes > 1:
        raise NoiseError(
            f"use_reentrant must be false with {strategy.name}, which runs several forward passes a step, "
            "got true (TRL sets it for PEFT with ZeRO-3: choose ZeRO-2 or FSDP2 there)."
        )
    around_backward = strategy.weights is not None and strategy.weights.every_step
    optimizer = str(getattr(args.optim, "value", args.optim))
    if optimizer.endswith(("layerwise", "lomo")) and (around_backward or strategy.objective.passes > 1):
        raise NoiseError(
            f"optim must step after the backward pass with {strategy.name}, which changes the weights around it or "
            f"runs several, got {optimizer!r}."
        )
    kind = processes.distributed_type
    split_weights = kind in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    climbs = strategy.weights is None and strategy.site == "weights"
    if split_weights and (around_backward or climbs):
        # DeepSpeed's backward includes the optimizer step, which restoring the weights would undo.
        raise NoiseError(
            f"{strategy.name} needs whole weights, which it changes around a step, got {kind.value}: choose DDP."
        )
    split = getattr(processes, "parallelism_config", None)
    for size in ("cp_size", "sp_size"):
        # Without a noise too: an objective would climb, compare or ask on a part of a document.
        if not strategy.clean and getattr(split, size, 1) > 1:
            raise NoiseError(f"{size} must be 1 with noise, which needs whole documents, got {getattr(split, size)}.")
    wrapped = getattr(args, "packing", False) and getattr(args, "packing_strategy", None) == "wrapped"
    if strategy.noise is not None and wrapped:
        warnings.warn(
            "packing_strategy='wrapped' carries no borders of documents: noise takes a whole row for one document. "
            "Choose 'bfd' for noise by document.",
            NoiseWarning,
            stacklevel=4,
        )


def check_calls(trainer: Trainer, strategy: Strategy, reference: str, runs_reference: bool) -> None:
    """Raise if a strategy or a reference is incompatible with how a trainer calls its model.

    Args:
        trainer: the trainer.
        strategy: its strategy.
        reference: what a reference model sees, `clean` or `same`.
        runs_reference: whether the loss runs the reference model.

    Raises:
        NoiseError: if it is incompatible.
    """
    name = type(trainer).__name__
    if reference not in ("clean", "same"):
        raise NoiseError(f"reference must be 'clean' or 'same', got {reference!r}.")
    if isinstance(strategy.noise, TokenEdit) and compares_token_ids(trainer):
        raise NoiseError(f"noise must not edit token ids with {name}, got {strategy.name!r}.")
    if strategy.weights is not None and strategy.weights.every_step:
        use = other_use_of_model(trainer, adapter_only=getattr(strategy.weights, "of_adapter", False))
        if use is not None:
            raise NoiseError(
                f"{strategy.name} changes the weights for a whole step, so the trainer must use them for its loss "
                f"alone, got {name}, which also {use}."
            )
    changes = strategy.weights is not None or not strategy.clean
    if reference == "same" and strategy.noise is None and changes:
        raise NoiseError(f"reference='same' needs a noise on embeddings or layers, got {strategy.name!r}.")
    # GRPO and RLOO compute reference and old log-probabilities in advance for several steps, but noise is drawn per
    # step.
    if reference == "same" and (not runs_reference or strategy.objective.passes > 1):
        raise NoiseError(
            "reference='same' needs a trainer that runs its reference inside the loss (DPO, KTO) and a strategy of "
            f"one pass, got {name} and {strategy.name!r}."
        )
    if reference == "same" and getattr(trainer.args, "precompute_ref_log_probs", False):
        raise NoiseError("precompute_ref_log_probs must be false with reference='same', got true.")


def check_wrapped(model: nn.Module) -> None:
    """Raise if a model in one of several processes has no wrapper that averages its gradients.

    DDP averages gradients only if its wrapper is called, and a loss calls the model that it was given.

    Raises:
        NoiseError: if the model is not wrapped.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    count, name = torch.distributed.get_world_size(), type(base_model(model)).__name__
    split = any(
        isinstance(weight, DTensor) for weight in model.parameters()
    )  # by FSDP2 or tensor parallelism, in place
    if count > 1 and not split and not averages_gradients(getattr(model, "_orig_mod", model)):
        raise NoiseError(
            f"model must be wrapped before attach in {count} processes, got a bare {name}, whose gradients would not "
            "be averaged: attach(DistributedDataParallel(model), ...)."
        )
