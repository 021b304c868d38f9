"""Private and unstable names in the path from loss to gradients: of trainers, accelerate and DeepSpeed.

Documented and read like those in `hf_internals`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
import transformers
from accelerate.utils import DistributedType, DynamoBackend
from packaging.version import Version
from torch import Tensor

from neft_zoo.passes.accumulation import Accumulation, EngineBackward, Gradient, StoredGradients
from neft_zoo.passes.torch_internals import read

if TYPE_CHECKING:
    from accelerate.state import AcceleratorState
    from torch.amp.grad_scaler import GradScaler
    from transformers import Trainer


# accelerate 1.10 to 1.15: undocumented; None without a mesh. `process_index` counts the ranks of a tensor-parallel
# group separately, although they get the same data.
# https://github.com/huggingface/accelerate/blob/v1.15.0/src/accelerate/accelerator.py
def data_parallel_rank(processes: AcceleratorState) -> int:
    """Return which share of the data this process gets; the ranks of a tensor-parallel group get the same one."""
    mesh = read(processes, "device_mesh", "accelerate")
    names = getattr(mesh, "mesh_dim_names", None)
    if not names:
        return processes.process_index
    rank = 0
    for name, size, place in zip(names, mesh.mesh.shape, mesh.get_coordinate(), strict=True):
        rank = rank * size + place if name.startswith("dp") else rank
    return rank


# accelerate 1.10 to 1.15: its options for compiling a model, documented only for launching.
# https://github.com/huggingface/accelerate/blob/v1.15.0/src/accelerate/state.py
def is_compiled(processes: AcceleratorState) -> bool:
    """Return whether accelerate compiles the model."""
    return read(processes, "dynamo_plugin", "accelerate").backend != DynamoBackend.NO


# accelerate 1.10 to 1.15: its `backward` includes DeepSpeed's optimizer step, and drops the gradients.
# https://github.com/huggingface/accelerate/blob/v1.15.0/src/accelerate/utils/deepspeed.py
def steps_in_backward(processes: AcceleratorState) -> bool:
    """Return whether the optimizer step is already over, and its gradients freed, when a trainer announces it."""
    return processes.distributed_type == DistributedType.DEEPSPEED


# accelerate 1.10 to 1.15: its `backward` includes DeepSpeed's optimizer step.
# https://github.com/huggingface/accelerate/blob/v1.15.0/src/accelerate/utils/deepspeed.py
def accumulation_of(trainer: Trainer, num_items_in_batch: Tensor | int | None) -> Accumulation:
    """Return how a part of a step's loss is differentiated before the step's other passes are run.

    FSDP and DeepSpeed reduce gradients immediately, into their own buffers, and ZeRO-3 can traverse a graph only once.
    """
    kind, gradient = trainer.accelerator.distributed_type, gradient_of(trainer)
    if kind not in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        return StoredGradients(gradient)
    share = 1 if _is_scaled(trainer, num_items_in_batch) else _accumulation_steps(trainer)
    if kind == DistributedType.FSDP:
        return EngineBackward(lambda loss: trainer.accelerator.backward(loss / share), gradient, kind.value)
    engine = read(trainer.accelerator, "deepspeed_engine_wrapped", "accelerate")
    how = {"sync_gradients": False, "scale_wrt_gas": False}
    return EngineBackward(lambda loss: engine.backward(loss / share, **how), gradient, kind.value)


# DeepSpeed 0.19: it reduces the parameters' gradients after every backward pass, and treats the next one as part of
# the
# same step. Its loss scale remains in the gradient, which is harmless: an ascent needs directions only.
# https://github.com/deepspeedai/DeepSpeed/blob/v0.19.8/deepspeed/runtime/engine.py
def gradient_of(trainer: Trainer) -> Gradient:
    """Return `torch.autograd.grad`, or its replacement for an engine or for fp16 loss scaling."""
    scaler = read(trainer.accelerator, "scaler", "accelerate")
    if not trainer.is_deepspeed_enabled:
        return torch.autograd.grad if scaler is None else partial(_scaled_gradient, scaler)
    engine = read(read(trainer.accelerator, "deepspeed_engine_wrapped", "accelerate"), "engine", "accelerate")
    scale = read(engine, "scale", "deepspeed")

    def gradient(value: Tensor, inputs: list[Tensor], retain_graph: bool = False) -> tuple[Tensor, ...]:
        reduces = read(engine, "enable_backward_allreduce", "deepspeed")
        engine.enable_backward_allreduce = False
        try:
            return torch.autograd.grad(scale(value), inputs, retain_graph=retain_graph)
        finally:
            engine.enable_backward_allreduce = reduces

    return gradient


def _scaled_gradient(
    scaler: GradScaler, value: Tensor, inputs: list[Tensor], retain_graph: bool = False, allow_unused: bool = False
) -> tuple[Tensor | None, ...]:
    """Return gradients computed with loss scaling, so that small ones do not underflow in fp16."""
    scale = scaler.get_scale()
    gradients = torch.autograd.grad(value * scale, inputs, retain_graph=retain_graph, allow_unused=allow_unused)
    return tuple(None if gradient is None else gradient / scale for gradient in gradients)


# transformers 5.6 to 5.23: a tensor-parallel group counts as one rank here, since it holds the same batch.
# https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/trainer.py
def token_weight(trainer: Trainer, num_items_in_batch: Tensor | int | None) -> Tensor | float | None:
    """Return the factor from a sum over tokens to the trainer's loss, which covers accumulation and ranks."""
    if num_items_in_batch is None:
        return None
    replicas = trainer.accelerator.num_processes // read(trainer, "get_tp_size", "transformers")()
    ranks = replicas if trainer.args.average_tokens_across_devices else 1
    # If nothing is graded, the sum is 0 and must not become 0 / 0.
    return ranks / torch.as_tensor(num_items_in_batch).clamp(min=1)


# transformers 5.22 on: a public switch, None unless a trainer sets it. Before, and without it, `training_step` decides
# by these two undocumented attributes.
# https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/trainer.py
def _is_scaled(trainer: Trainer, num_items_in_batch: Tensor | int | None) -> bool:
    """Return whether the loss is already divided by the number of micro-batches."""
    if Version(transformers.__version__) >= Version("5.22"):
        scaled = read(trainer, "loss_is_scaled_for_ga", "transformers")
        if scaled is not None:
            return scaled
    counted = read(trainer, "model_accepts_loss_kwargs", "transformers") and num_items_in_batch is not None
    return counted or bool(read(trainer, "compute_loss_func", "transformers"))


# transformers 5.6 to 5.23: number of micro-batches in the current step (fewer at an epoch's end), set by the loop.
# https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/trainer.py
def _accumulation_steps(trainer: Trainer) -> int:
    return read(trainer, "current_gradient_accumulation_steps", "transformers")
