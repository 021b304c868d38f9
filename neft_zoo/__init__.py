"""Embedding-noise regularization for fine-tuning with TRL and PEFT."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"  # also read by the build

# Loaded on first use, so that `neft-zoo list` does not import torch.
_HOME = {
    "SFTTrainer": "training.trainers",
    "NoiseSFTConfig": "training.sft_config",
    "DPOTrainer": "training.trainers",
    "GRPOTrainer": "training.trainers",
    "KTOTrainer": "training.trainers",
    "RLOOTrainer": "training.trainers",
    "RewardTrainer": "training.trainers",
    "DistillationTrainer": "training.distillation",
    "Trainer": "training.hf_trainer",
    "enable": "training.enable",
    "NoiseCallback": "training.callback",
    "NoiseMixin": "training.mixin",
    "NoiseError": "errors",
    "Strategy": "registry",
    "attach": "training.loop",
    "make": "registry",
    "names": "registry",
    "register": "registry",
    "shipped": "config.package_data",
}
__all__ = [*_HOME]

if TYPE_CHECKING:
    from neft_zoo.config.package_data import shipped as shipped
    from neft_zoo.errors import NoiseError as NoiseError
    from neft_zoo.registry.entries import make as make
    from neft_zoo.registry.entries import names as names
    from neft_zoo.registry.entries import register as register
    from neft_zoo.registry.strategy import Strategy as Strategy
    from neft_zoo.training.callback import NoiseCallback as NoiseCallback
    from neft_zoo.training.distillation import DistillationTrainer as DistillationTrainer
    from neft_zoo.training.enable import enable as enable
    from neft_zoo.training.hf_trainer import Trainer as Trainer
    from neft_zoo.training.loop import attach as attach
    from neft_zoo.training.mixin import NoiseMixin as NoiseMixin
    from neft_zoo.training.sft_config import NoiseSFTConfig as NoiseSFTConfig
    from neft_zoo.training.trainers import DPOTrainer as DPOTrainer
    from neft_zoo.training.trainers import GRPOTrainer as GRPOTrainer
    from neft_zoo.training.trainers import KTOTrainer as KTOTrainer
    from neft_zoo.training.trainers import RewardTrainer as RewardTrainer
    from neft_zoo.training.trainers import RLOOTrainer as RLOOTrainer
    from neft_zoo.training.trainers import SFTTrainer as SFTTrainer


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'neft_zoo' has no attribute {name!r}")
    return getattr(importlib.import_module(f"neft_zoo.{_HOME[name]}"), name)
