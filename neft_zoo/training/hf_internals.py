"""The private and unstable names of trainers and their libraries that the package uses, one function per name.

Each has a comment with its reason, the versions in which it was verified and where it is defined, and is read through
`read`, which raises if a new version has dropped it. Names of accelerate and DeepSpeed that concern gradients are in
`engine_internals`; those of torch's modules are in `passes.torch_internals`.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from packaging.version import Version
from torch import Tensor, nn

from neft_zoo.errors import NoiseError
from neft_zoo.passes.torch_internals import read

if TYPE_CHECKING:
    from pathlib import Path

    from accelerate import Accelerator
    from torch.utils.hooks import RemovableHandle
    from transformers import Trainer
    from trl.trainer.sft_trainer import SFTTrainer

    from neft_zoo.training.own_loss import ModelInputs

# TRL's names for the labels' negative log-likelihood; earlier versions had two implementations.
NLL = ("nll", "chunked_nll")
SFT = "trl.trainer.sft_trainer"


def require_trl(least: str) -> None:
    """Raise unless a supported version of TRL is installed.

    Raises:
        NoiseError: if it is missing or too old.
    """
    found = version("trl") if find_spec("trl") is not None else None
    if found is None or Version(found) < Version(least):
        raise NoiseError(
            f"this trainer with noise= needs trl>={least}, got {found or 'no trl'}: give a trainer of any version to "
            "neft_zoo.enable(trainer, noise), or neft_zoo.NoiseCallback(noise) to its callbacks."
        )


# TRL 1.8 to 1.16: there is no public way to ask which function computes the loss. A loss with label smoothing, with a
# router loss or with further graded positions (after PEFT's virtual tokens) is treated as a custom one; each of these
# switches is an undocumented attribute.
# https://github.com/huggingface/trl/blob/v1.16.0/trl/trainer/sft_trainer.py
# https://github.com/huggingface/peft/blob/v0.21.2/src/peft/peft_model.py
def is_nll(trainer: Trainer, compute_loss: Callable[..., object]) -> bool:
    """Return whether a trainer's loss is TRL's own negative log-likelihood of the labels and nothing else."""
    if compute_loss.__module__ != SFT or getattr(trainer.args, "loss_type", None) not in NLL:
        return False
    loss_func, smoother = (read(trainer, name, "transformers") for name in ("compute_loss_func", "label_smoother"))
    virtual = hasattr(trainer.model, "get_base_model") and read(
        read(trainer.model, "active_peft_config", "peft"), "is_prompt_learning", "peft"
    )
    return not (loss_func or smoother or virtual or read(trainer, "aux_loss_enabled", "trl"))


# TRL 0.24 to 1.16: there is no public way to ask whether a trainer runs a reference model inside its loss, and how its
# loss uses token ids.
# https://github.com/huggingface/trl/blob/v1.16.0/trl/trainer/dpo_trainer.py
def runs_reference(trainer: Trainer) -> bool:
    """Return whether a trainer is one of TRL's whose loss runs the reference model."""
    return bool(_trl_classes(trainer) & {"DPOTrainer", "KTOTrainer"})


def compares_token_ids(trainer: Trainer) -> bool:
    """Return whether a loss uses token ids outside of the model's call: as targets, or for another model."""
    trl = _trl_classes(trainer)
    others = (getattr(trainer, name, None) for name in ("teacher_model", "ref_model"))
    return bool(trl) and "SFTTrainer" not in trl or any(other is not None for other in others)


# TRL 0.24 to 1.16: there is no public way to ask what else a trainer does with its model within a training step. Those
# that generate have a method named so; those whose loss runs a reference take the model with its adapter off, or with
# a second adapter, where they have no other.
# https://github.com/huggingface/trl/blob/v1.16.0/trl/trainer/grpo_trainer.py
def other_use_of_model(trainer: Trainer, adapter_only: bool = False) -> str | None:
    """Return what one of TRL's trainers does with its model in a step besides its loss, None if nothing.

    Args:
        trainer: the trainer.
        adapter_only: leave out what does not use the adapter that trains.
    """
    classes = [cls for cls in type(trainer).__mro__ if cls.__module__.startswith("trl.")]
    if any(name.startswith(("_generate", "generate_on_policy")) for cls in classes for name in vars(cls)):
        return "generates with them"
    precomputed = getattr(trainer.args, "precompute_ref_log_probs", False)
    own = runs_reference(trainer) and getattr(trainer, "ref_model", None) is None and not precomputed
    return "takes them for its reference model" if own and not adapter_only else None


def _trl_classes(trainer: Trainer) -> set[str]:
    return {cls.__name__ for cls in type(trainer).__mro__ if cls.__module__.startswith("trl.")}


# TRL 1.8 to 1.16: the only place where the name of the prepared data set is known; subclasses override it to grade or
# sort a data set differently. Its parameters are bound by name, so that a new one does not shift the others.
# https://github.com/huggingface/trl/blob/v1.16.0/trl/trainer/sft_trainer.py
def name_of_dataset(trainer: SFTTrainer, args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
    """Return which data set a call of `SFTTrainer._prepare_dataset` prepares: "train", or an evaluation set's name.

    Args:
        trainer: the trainer.
        args, kwargs: arguments of the call, without `self`.
    """
    from trl.trainer.sft_trainer import SFTTrainer

    call = inspect.signature(read(SFTTrainer, "_prepare_dataset", "trl")).bind(trainer, *args, **kwargs)
    return str(call.arguments["dataset_name"])


# transformers 5.6 to 5.23: what `training_step` does to a batch first; TRL's trainers override it.
# https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/trainer.py
def prepared_inputs(trainer: Trainer, inputs: ModelInputs) -> ModelInputs:
    """Return a batch on the trainer's device, prepared for its loss."""
    return read(trainer, "_prepare_inputs", "transformers")(inputs)


# transformers 5.6 to 5.23: the only function that loads both full models and adapters into a trainer's model.
# https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/trainer.py
def load_weights(trainer: Trainer, folder: Path) -> None:
    """Load the weights that `save_model` wrote."""
    read(trainer, "_load_from_checkpoint", "transformers")(str(folder))


# transformers 5.6 to 5.23: TRL extends it in each class; fields that are missing from it keep JSON as text.
# https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/training_args.py
def json_fields(config: type) -> list[str]:
    """Return the fields of a config class that the command line may give as JSON."""
    return read(config, "_VALID_DICT_FIELDS", "transformers")


# transformers 5.6 to 5.23: the module moved in early 2026, from trainer_utils to integrations.
# https://github.com/huggingface/transformers/pull/43714
class StockNoise:
    """transformers' own `neftune_noise_alpha`, activated on a model and deactivated again as its trainer does.

    Args:
        model: a model, which a trainer may have wrapped.
        alpha: the option's value.
        accelerator: of the trainer, to unwrap the model.
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
    """Return embeddings with the noise of `neftune_noise_alpha`, added by the same hook as in training."""
    from transformers.integrations import neftune

    module = argparse.Namespace(training=True, neftune_noise_alpha=alpha)
    return read(neftune, "neftune_post_forward_hook", "transformers")(module, None, embeds)
