"""What transformers, TRL and accelerate do around a loss: ranks, accumulation, counters, and what cannot work."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils import DistributedType, DynamoBackend
from torch import Tensor

from neft_zoo.errors import NoiseError
from neft_zoo.noise.additive import TokenEdit
from neft_zoo.registry.strategy import Strategy

# TRL's names for the labels' negative log-likelihood; it had two ways to compute it once.
NLL = ("nll", "chunked_nll")


def data_parallel_rank(accelerator: Any) -> int:
    """Return which share of the data this process sees; the ranks of a tensor-parallel group see the same one."""
    mesh: Any = getattr(accelerator, "torch_device_mesh", None)
    names = getattr(mesh, "mesh_dim_names", None)
    if not names:
        return accelerator.process_index
    rank = 0
    for name, size, place in zip(names, mesh.mesh.shape, mesh.get_coordinate(), strict=True):
        rank = rank * size + place if name.startswith("dp") else rank
    return rank


def is_compiled(accelerator: Any) -> bool:
    """Return whether accelerate hands the model to torch.compile."""
    return accelerator.state.dynamo_plugin.backend != DynamoBackend.NO


def token_weight(trainer: Any, num_items_in_batch: Tensor | int | None) -> Tensor | float | None:
    """Return what the trainer multiplies a sum of token losses by: accumulation and ranks are in it."""
    if num_items_in_batch is None:
        return None
    # Ranks of a tensor-parallel group hold the same batch, which is counted once.
    replicas = trainer.accelerator.num_processes // trainer.get_tp_size()
    ranks = replicas if trainer.args.average_tokens_across_devices else 1
    # Where nothing is graded the sum is 0, and must not become 0 / 0.
    return ranks / torch.as_tensor(num_items_in_batch).clamp(min=1)


def is_nll(trainer: Any, compute_loss: Any) -> bool:
    """Return whether a trainer's loss is TRL's own, of the labels' log-probabilities alone.

    Others that are weighted otherwise, smooth the labels, add a router's loss or grade a position more (after virtual
    tokens) are taken as they come.
    """
    args, peft = trainer.args, getattr(trainer.model, "active_peft_config", None)
    own = compute_loss.__module__ == "trl.trainer.sft_trainer" and getattr(args, "loss_type", None) in NLL
    special = trainer.compute_loss_func, trainer.label_smoother, getattr(peft, "is_prompt_learning", False)
    return own and not any(special) and not getattr(trainer, "aux_loss_enabled", False)


def backward_of(trainer: Any, num_items_in_batch: Tensor | int | None) -> Callable[[Tensor], None]:
    """Return a backward pass on the scale of the one that follows `compute_loss`."""
    scaled = getattr(trainer, "loss_is_scaled_for_ga", None)  # transformers before 5.22 has no such switch
    if scaled is None:
        counted = trainer.model_accepts_loss_kwargs and num_items_in_batch is not None
        scaled = counted or bool(trainer.compute_loss_func)
    share = 1 if scaled else trainer.current_gradient_accumulation_steps
    if trainer.is_deepspeed_enabled:
        # accelerate's backward takes DeepSpeed's optimizer step as well; and ZeRO-3 walks a graph once only.
        engine = trainer.accelerator.deepspeed_engine_wrapped
        return lambda loss: engine.backward(loss / share, sync_gradients=False, scale_wrt_gas=False)
    return lambda loss: trainer.accelerator.backward(loss / share)


def gradient_of(trainer: Any) -> Callable[..., tuple[Tensor, ...]]:
    """Return `torch.autograd.grad`, or what stands in for it where an engine would take it for a step's backward pass.

    DeepSpeed reduces the parameters' gradients after any backward pass, and takes the next one for more of the same
    step. Its loss scale stays in the gradient: an ascent asks for directions only.
    """
    if not trainer.is_deepspeed_enabled:
        return torch.autograd.grad
    engine = trainer.accelerator.deepspeed_engine_wrapped.engine

    def gradient(value: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        reduces, engine.enable_backward_allreduce = engine.enable_backward_allreduce, False
        try:
            return torch.autograd.grad(engine.scale(value), *args, **kwargs)
        finally:
            engine.enable_backward_allreduce = reduces

    return gradient


class PassCounters:
    """What a trainer counts and logs in `compute_loss`, so that a step of several passes counts as one."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.tokens = vars(trainer).get("_total_train_tokens")
        self.metrics = vars(trainer).get("_metrics", {}).get("train", {})
        self.lengths = {name: len(values) for name, values in self.metrics.items()}

    def rewind(self) -> None:
        """Forget what the previous pass of this step counted."""
        if self.tokens is not None:
            self.trainer._total_train_tokens = self.tokens
        for name, values in self.metrics.items():
            del values[self.lengths.get(name, 0) :]


def check_engine(trainer: Any, strategy: Strategy) -> None:
    """Raise, before training, for settings under which the noise would not be what it says.

    Raises:
        NoiseError: for two noises at once, reentrant checkpointing with several passes, split weights that change at
            every step, or a split sequence.
    """
    args = trainer.args
    if args.neftune_noise_alpha is not None:
        raise NoiseError(
            f"neftune_noise_alpha must be unset when noise is given, got {args.neftune_noise_alpha!r}: "
            "two noises would add up."
        )
    settings = args.gradient_checkpointing_kwargs
    reentrant = isinstance(settings, dict) and settings.get("use_reentrant")
    if args.gradient_checkpointing and reentrant and strategy.objective.passes > 1:
        raise NoiseError(
            f"use_reentrant must be false with {strategy.name}, which runs several forward passes a step, "
            "got true (TRL sets it for PEFT with ZeRO-3: choose ZeRO-2 or FSDP2 there)."
        )
    kind = trainer.accelerator.distributed_type
    split_weights = kind in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    if split_weights and strategy.weights is not None and strategy.weights.every_step:
        # DeepSpeed's backward takes the optimizer step as well, which putting the weights back would undo.
        raise NoiseError(
            f"{strategy.name} needs whole weights, which it changes around a step, got {kind.value}: choose DDP."
        )
    split = getattr(trainer.accelerator, "parallelism_config", None)
    for size in ("cp_size", "sp_size"):
        if strategy.noise is not None and getattr(split, size, 1) > 1:
            raise NoiseError(f"{size} must be 1 with noise, which needs whole documents, got {getattr(split, size)}.")
    if strategy.noise is not None and getattr(args, "packing", False) and args.packing_strategy == "wrapped":
        warnings.warn(
            "packing_strategy='wrapped' carries no borders of documents: noise takes a whole row for one document. "
            "Choose 'bfd' for noise by document.",
            stacklevel=4,
        )


def check_calls(trainer: Any, strategy: Strategy, reference: str) -> None:
    """Raise for a strategy, or a reference, that does not go with how a trainer calls its model.

    Raises:
        NoiseError: if it does not.
    """
    name = type(trainer).__name__
    if reference not in ("clean", "same"):
        raise NoiseError(f"reference must be 'clean' or 'same', got {reference!r}.")
    if trainer.reads_calls and isinstance(strategy.noise, TokenEdit):
        raise NoiseError(f"noise must not edit token ids with {name}, got {strategy.name!r}.")
    # GRPO and RLOO score references and old log-probabilities ahead, for several steps, and each step draws anew.
    if reference == "same" and (not trainer.runs_reference or strategy.objective.passes > 1):
        raise NoiseError(
            "reference='same' needs a trainer that runs its reference inside the loss (DPO, KTO) and a strategy of "
            f"one pass, got {name} and {strategy.name!r}."
        )
    if reference == "same" and getattr(trainer.args, "precompute_ref_log_probs", False):
        raise NoiseError("precompute_ref_log_probs must be false with reference='same', got true.")
