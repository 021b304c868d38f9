"""Embedding-noise regularization for fine-tuning with TRL and PEFT."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Names are loaded when first used, so that `neft-zoo list` need not import torch.
_HOME = {
    "SFTTrainer": "trainers",
    "NoiseSFTConfig": "trainers",
    "DPOTrainer": "trainers",
    "GRPOTrainer": "trainers",
    "KTOTrainer": "trainers",
    "RLOOTrainer": "trainers",
    "RewardTrainer": "trainers",
    "Trainer": "trainers",
    "NoiseMixin": "mixin",
    "NoiseError": "errors",
    "Strategy": "registry",
    "attach": "loop",
    "make": "registry",
    "names": "registry",
    "register": "registry",
}
__all__ = [*_HOME]

if TYPE_CHECKING:
    from neft_zoo.errors import NoiseError as NoiseError
    from neft_zoo.loop import attach as attach
    from neft_zoo.mixin import NoiseMixin as NoiseMixin
    from neft_zoo.registry import Strategy as Strategy
    from neft_zoo.registry import make as make
    from neft_zoo.registry import names as names
    from neft_zoo.registry import register as register
    from neft_zoo.trainers import DPOTrainer as DPOTrainer
    from neft_zoo.trainers import GRPOTrainer as GRPOTrainer
    from neft_zoo.trainers import KTOTrainer as KTOTrainer
    from neft_zoo.trainers import NoiseSFTConfig as NoiseSFTConfig
    from neft_zoo.trainers import RewardTrainer as RewardTrainer
    from neft_zoo.trainers import RLOOTrainer as RLOOTrainer
    from neft_zoo.trainers import SFTTrainer as SFTTrainer
    from neft_zoo.trainers import Trainer as Trainer


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'neft_zoo' has no attribute {name!r}")
    return getattr(importlib.import_module(f"neft_zoo.{_HOME[name]}"), name)
