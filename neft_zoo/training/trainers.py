"""The trainers: TRL's, with `noise=`."""

from __future__ import annotations

import transformers
from trl.trainer.dpo_trainer import DPOTrainer as TRLDPOTrainer
from trl.trainer.grpo_trainer import GRPOTrainer as TRLGRPOTrainer
from trl.trainer.kto_trainer import KTOTrainer as TRLKTOTrainer
from trl.trainer.reward_trainer import RewardTrainer as TRLRewardTrainer
from trl.trainer.rloo_trainer import RLOOTrainer as TRLRLOOTrainer
from trl.trainer.sft_trainer import SFTTrainer as TRLSFTTrainer

from neft_zoo.training.mixin import NoiseMixin


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
