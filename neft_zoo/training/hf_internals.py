"""The private and unstable names of trainers and their libraries that the package relies on, one function a name.

Each stands under a comment with its reason, the versions in which it was seen and where it is defined, and is read
through `read`, which raises once a new version has dropped it. Names of torch's modules: `passes.torch_internals`.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
import transformers
from accelerate.utils import DistributedType, DynamoBackend
from packaging.version import Version
from torch import Tensor, nn

from neft_zoo.errors import NoiseError
from neft_zoo.passes.accumulation import Accumulation, EngineBackward, Gradient, StoredGradients
from neft_zoo.passes.torch_internals import read

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from torch.amp.grad_scaler import GradScaler
    from torch.utils.hooks import RemovableHandle
    from transformers import Trainer
    from trl.trainer.sft_trainer import SFTTrainer

    from neft_zoo.training.session import ModelInputs

# TRL's names for the labels' negative log-likelihood; it had two ways to compute it once.
NLL = ("nll", "chunked_nll")
SFT = "trl.trainer.sft_trainer"


def require_trl(least: str) -> None:
    """Raise unless TRL is installed, in a version that its trainers were run with.

    Raises:
        NoiseError: if it is not.
    """
    found = version("trl") if find_spec("trl") is not None else None
    if found is None or Version(found) < Version(least):
        raise NoiseError(
            f"this trainer with noise= needs trl>={least}, got {found or 'no trl'}: give a trainer of any version to "
            "neft_zoo.enable(trainer, noise), or neft_zoo.NoiseCallback(noise) to its callbacks."
        )


# accelerate 1.10 to 1.15: undocumented; None without a mesh. `process_index` counts the ranks of a tensor-parallel
# group apart, although they see the same data.
# https://github.com/huggingface/accelerate/blob/v1.15.0/src/accelerate/accelerator.py
def data_parallel_rank(processes: AcceleratorState) -> int:
    """Return which share of the data this process sees; the ranks of a tensor-parallel group see the same one."""
    mesh = read(processes, "device_mesh", "accelerate")
    names = getattr(mesh, "mesh_dim_names", None)
    if not names:
        return processes.process_index
    rank = 0
    for name, size, place in zip(names, mesh.mesh.shape, mesh.get_coordinate(), strict=True):
        rank = rank * size + place if name.startswith("dp") else rank
    return rank


# accelerate 1.10 to 1.15: the options that it compiles a model with, documented for launching only.
# https://github.com/huggingface/accelerate/blob/v1.15.0/src/accelerate/state.py
def is_compiled(processes: AcceleratorState) -> bool:
    """Return whether accelerate hands the model to torch.compile."""
    return read(processes, "dynamo_plugin", "accelerate").backend != DynamoBackend.NO


# accelerate 1.10 to 1.15: its own `backward` takes DeepSpeed's optimizer step as well.
# https://github.com/huggingface/accelerate/blob/v1.15.0/src/accelerate/utils/deepspeed.py
def accumulation_of(trainer: Trainer, num_items_in_batch: Tensor | int | None) -> Accumulation:
    """Return how a part of a step's loss is differentiated before the step's other passes are run.

    FSDP and DeepSpeed reduce gradients as they are made, into memory of their own, and ZeRO-3 walks a graph once only.
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


# DeepSpeed 0.19: it reduces the parameters' gradients after any backward pass, and takes the next one for more of the
# same step. Its loss scale stays in the gradient: an ascent asks for directions only.
# https://github.com/deepspeedai/DeepSpeed/blob/v0.19.8/deepspeed/runtime/engine.py
def gradient_of(trainer: Trainer) -> Gradient:
    """Return `torch.autograd.grad`, or what an engine or the loss scale of fp16 needs in its place."""
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
    """Return gradients that were scaled on their way, so that fp16 does not lose small ones."""
    scale = scaler.get_scale()
    gradients = torch.autograd.grad(value * scale, inputs, retain_graph=retain_graph, allow_unused=allow_unused)
    return tuple(None if gradient is None else gradient / scale for gradient in gradients)


# transformers 5.6 to 5.23: with it a tensor-parallel group counts as one; it holds the same batch.
# https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/trainer.py
def token_weight(trainer: Trainer, num_items_in_batch: Tensor | int | None) -> Tensor | float | None:
    """Return the factor that turns a sum over tokens into the trainer's loss: accumulation and ranks are in it."""
    if num_items_in_batch is None:
        return None
    replicas = trainer.accelerator.num_processes // read(trainer, "get_tp_size", "transformers")()
    ranks = replicas if trainer.args.average_tokens_across_devices else 1
    # Where nothing is graded the sum is 0, and must not become 0 / 0.
    return ranks / torch.as_tensor(num_items_in_batch).clamp(min=1)


# transformers 5.22 on: a public switch, None unless a trainer sets it. Before, and without it, `training_step` decides
# by these two attributes, which are documented nowhere.
# https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/trainer.py
def _is_scaled(trainer: Trainer, num_items_in_batch: Tensor | int | None) -> bool:
    """Return whether the loss has the number of micro-batches in it already."""
    if Version(transformers.__version__) >= Version("5.22"):
        scaled = read(trainer, "loss_is_scaled_for_ga", "transformers")
        if scaled is not None:
            return scaled
    counted = read(trainer, "model_accepts_loss_kwargs", "transformers") and num_items_in_batch is not None
    return counted or bool(read(trainer, "compute_loss_func", "transformers"))


# transformers 5.6 to 5.23: micro-batches of the current step, fewer at the end of an epoch; set by the training loop.
# https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/trainer.py
def _accumulation_steps(trainer: Trainer) -> int:
    return read(trainer, "current_gradient_accumulation_steps", "transformers")


# TRL 1.8 to 1.16: the loss is made by a function that nothing names. What smooths the labels, adds a router's loss or
# grades a position more (after PEFT's virtual tokens) is taken as it comes; each such switch is an undocumented
# attribute.
# https://github.com/huggingface/trl/blob/v1.16.0/trl/trainer/sft_trainer.py
# https://github.com/huggingface/peft/blob/v0.21.2/src/peft/peft_model.py
def is_nll(trainer: Trainer, compute_loss: Callable[..., object]) -> bool:
    """Return whether a trainer's loss is TRL's own, of the labels' log-probabilities alone."""
    if compute_loss.__module__ != SFT or getattr(trainer.args, "loss_type", None) not in NLL:
        return False
    loss_func, smoother = (read(trainer, name, "transformers") for name in ("compute_loss_func", "label_smoother"))
    virtual = hasattr(trainer.model, "get_base_model") and read(
        read(trainer.model, "active_peft_config", "peft"), "is_prompt_learning", "peft"
    )
    return not (loss_func or smoother or virtual or read(trainer, "aux_loss_enabled", "trl"))


# TRL 0.24 to 1.16: whether a trainer runs a reference model inside its loss, and what its loss makes of token ids,
# nothing public says.
# https://github.com/huggingface/trl/blob/v1.16.0/trl/trainer/dpo_trainer.py
def runs_reference(trainer: Trainer) -> bool:
    """Return whether a trainer is one of TRL's whose loss runs the reference model."""
    return bool(_trl_classes(trainer) & {"DPOTrainer", "KTOTrainer"})


def compares_token_ids(trainer: Trainer) -> bool:
    """Return whether a loss reads token ids apart from the model's call: as targets, or for another model."""
    trl = _trl_classes(trainer)
    others = (getattr(trainer, name, None) for name in ("teacher_model", "ref_model"))
    return bool(trl) and "SFTTrainer" not in trl or any(other is not None for other in others)


def _trl_classes(trainer: Trainer) -> set[str]:
    return {cls.__name__ for cls in type(trainer).__mro__ if cls.__module__.startswith("trl.")}


# TRL 1.8 to 1.16: the one place that knows which data set is prepared; a subclass that grades one otherwise, or sorts
# it, overrides it. Its parameters are bound by name, so that a new one does not shift the others.
# https://github.com/huggingface/trl/blob/v1.16.0/trl/trainer/sft_trainer.py
def name_of_dataset(trainer: SFTTrainer, args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
    """Return the data set that a call of `SFTTrainer._prepare_dataset` prepares: "train", or an evaluation set's name.

    Args:
        trainer: the trainer.
        args, kwargs: arguments of the call, without the trainer.
    """
    from trl.trainer.sft_trainer import SFTTrainer

    call = inspect.signature(read(SFTTrainer, "_prepare_dataset", "trl")).bind(trainer, *args, **kwargs)
    return str(call.arguments["dataset_name"])


# transformers 5.6 to 5.23: what `training_step` does to a batch first; TRL's trainers override it.
# https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/trainer.py
def prepared_inputs(trainer: Trainer, inputs: ModelInputs) -> ModelInputs:
    """Return a batch on the trainer's device, as its loss takes it."""
    return read(trainer, "_prepare_inputs", "transformers")(inputs)


# transformers 5.6 to 5.23: TRL extends it class by class; without a field in it, a JSON text stays a text.
# https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/training_args.py
def json_fields(config: type) -> list[str]:
    """Return the fields of a config class that the command line may give as JSON."""
    return read(config, "_VALID_DICT_FIELDS", "transformers")


# transformers 5.6 to 5.23: the module moved in early 2026, from trainer_utils to integrations.
# https://github.com/huggingface/transformers/pull/43714
class StockNoise:
    """transformers' own `neftune_noise_alpha`, set on a model and taken off again as its trainer does.

    Args:
        model: a model, which a trainer may have wrapped.
        alpha: the option's value.
        accelerator: of the trainer, which unwraps the model.
    """

    def __init__(self, model: nn.Module, alpha: float, accelerator: Accelerator) -> None:
        from transformers.integrations import neftune

        self.model, self.accelerator = model, accelerator
        self._remove = read(neftune, "deactivate_neftune", "transformers")
        self._handle: RemovableHandle = read(neftune, "activate_neftune", "transformers")(model, alpha, accelerator)

    def __enter__(self) -> StockNoise:
        return self

    def __exit__(self, *exception: object) -> None:
        self._remove(self.model, self._handle, self.accelerator)


def with_stock_noise(embeds: Tensor, alpha: float) -> Tensor:
    """Return embeddings with the noise of `neftune_noise_alpha`, by the hook that adds it in training."""
    from transformers.integrations import neftune

    module = argparse.Namespace(training=True, neftune_noise_alpha=alpha)
    return read(neftune, "neftune_post_forward_hook", "transformers")(module, None, embeds)
