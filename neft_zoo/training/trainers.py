"""TRL's trainers, with `noise=`; a TRL that is too old is said in one sentence."""

from __future__ import annotations

from neft_zoo.training.hf_internals import require_trl

require_trl("1.8")  # isort: split

from trl.trainer.dpo_trainer import DPOTrainer as TRLDPOTrainer
from trl.trainer.grpo_trainer import GRPOTrainer as TRLGRPOTrainer
from trl.trainer.kto_trainer import KTOTrainer as TRLKTOTrainer
from trl.trainer.reward_trainer import RewardTrainer as TRLRewardTrainer
from trl.trainer.rloo_trainer import RLOOTrainer as TRLRLOOTrainer
from trl.trainer.sft_trainer import SFTTrainer as TRLSFTTrainer

from neft_zoo.training.arguments import ChecksData
from neft_zoo.training.data_formats import PREFERENCE, PROMPTS, UNPAIRED
from neft_zoo.training.mixin import NoiseMixin


class SFTTrainer(ChecksData, NoiseMixin, TRLSFTTrainer):
    """TRL's `SFTTrainer` with `noise=`; every other argument is TRL's.

    Example:
        `SFTTrainer("Qwen/Qwen3-0.6B", train_dataset=data, noise="neft_uniform").train()`
    """


class DPOTrainer(ChecksData, NoiseMixin, TRLDPOTrainer):
    """TRL's `DPOTrainer` with `noise=`; `reference="same"` gives the reference model the policy's noise.

    Example:
        `DPOTrainer(model, args=args, train_dataset=pairs, noise="neft_uniform").train()`
    """

    formats = PREFERENCE


class KTOTrainer(ChecksData, NoiseMixin, TRLKTOTrainer):
    """TRL's `KTOTrainer` with `noise=`; `reference="same"` gives the reference model the policy's noise."""

    formats = UNPAIRED


class RewardTrainer(ChecksData, NoiseMixin, TRLRewardTrainer):
    """TRL's `RewardTrainer` with `noise=`."""

    formats = PREFERENCE


class GRPOTrainer(ChecksData, NoiseMixin, TRLGRPOTrainer):
    """TRL's `GRPOTrainer` with `noise=` in the pass that trains; generation and old log-probabilities are clean."""

    formats = PROMPTS


class RLOOTrainer(ChecksData, NoiseMixin, TRLRLOOTrainer):
    """TRL's `RLOOTrainer` with `noise=` in the pass that trains; generation and old log-probabilities are clean."""

    formats = PROMPTS
