"""The trainers: TRL's, with `noise=`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import transformers
from trl.trainer.dpo_trainer import DPOTrainer as TRLDPOTrainer
from trl.trainer.grpo_trainer import GRPOTrainer as TRLGRPOTrainer
from trl.trainer.kto_trainer import KTOTrainer as TRLKTOTrainer
from trl.trainer.reward_trainer import RewardTrainer as TRLRewardTrainer
from trl.trainer.rloo_trainer import RLOOTrainer as TRLRLOOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer as TRLSFTTrainer

from neft_zoo.errors import NoiseError, shown
from neft_zoo.mixin import NoiseMixin
from neft_zoo.registry import make


@dataclass
class NoiseSFTConfig(SFTConfig):
    """TRL's `SFTConfig` with the field `noise`, so that a recipe can hold it and a checkpoint records it.

    Args:
        noise: a strategy's name, or a mapping with `name` and arguments, as JSON on the command line.

    Raises:
        NoiseError: if the noise is not accepted.
    """

    _VALID_DICT_FIELDS = [*SFTConfig._VALID_DICT_FIELDS, "noise"]

    noise: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Embedding noise: a strategy's name, or JSON with name and arguments."},
    )

    def __post_init__(self) -> None:
        if self.noise is False:  # YAML reads `noise: off` as False
            self.noise = None
        if isinstance(self.noise, str) and self.noise.startswith("{"):
            try:
                json.loads(self.noise)
            except (ValueError, RecursionError):
                raise NoiseError(f"noise must be a name or JSON, got {shown(self.noise)}.") from None
        super().__post_init__()
        if self.noise is None:
            return
        if not isinstance(self.noise, str | Mapping):
            raise NoiseError(f"noise must be a name or a mapping with a name, got {shown(self.noise)}.")
        make(self.noise)
        if self.neftune_noise_alpha is not None:
            raise NoiseError(
                f"neftune_noise_alpha must be unset when noise is given, got {shown(self.neftune_noise_alpha)}: "
                "two noises would add up."
            )


class SFTTrainer(NoiseMixin, TRLSFTTrainer):
    """TRL's `SFTTrainer` with `noise=`; every other argument is TRL's.

    Example:
        `SFTTrainer("Qwen/Qwen3-0.6B", train_dataset=data, noise="neft_uniform").train()`
    """


class Trainer(NoiseMixin, transformers.Trainer):
    """transformers' `Trainer` with `noise=`."""


class DPOTrainer(NoiseMixin, TRLDPOTrainer):
    """TRL's `DPOTrainer` with `noise=`; `reference="same"` gives the reference model the policy's noise.

    Example:
        `DPOTrainer(model, args=args, train_dataset=pairs, noise="neft_uniform").train()`
    """

    reads_calls = runs_reference = True


class KTOTrainer(NoiseMixin, TRLKTOTrainer):
    """TRL's `KTOTrainer` with `noise=`; `reference="same"` gives the reference model the policy's noise."""

    reads_calls = runs_reference = True


class RewardTrainer(NoiseMixin, TRLRewardTrainer):
    """TRL's `RewardTrainer` with `noise=`."""

    reads_calls = True


class GRPOTrainer(NoiseMixin, TRLGRPOTrainer):
    """TRL's `GRPOTrainer` with `noise=` in the pass that trains; generation and old log-probabilities are clean."""

    reads_calls = True


class RLOOTrainer(NoiseMixin, TRLRLOOTrainer):
    """TRL's `RLOOTrainer` with `noise=` in the pass that trains; generation and old log-probabilities are clean."""

    reads_calls = True
