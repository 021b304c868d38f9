"""TRL's trainers with `noise=`; importing it with an unsupported TRL raises a one-sentence error."""

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


class SFTTrainer(ChecksData, TRLSFTTrainer):
    """TRL's `SFTTrainer` with `noise=`; every other argument is TRL's.

    Example:
        `SFTTrainer("Qwen/Qwen3-0.6B", train_dataset=data, noise="neft_uniform").train()`
    """


class DPOTrainer(ChecksData, TRLDPOTrainer):
    """TRL's `DPOTrainer` with `noise=`; with `reference="same"`, the reference model gets the policy's noise.

    Example:
        `DPOTrainer(model, args=args, train_dataset=pairs, noise="neft_uniform").train()`
    """

    formats = PREFERENCE


class KTOTrainer(ChecksData, TRLKTOTrainer):
    """TRL's `KTOTrainer` with `noise=`; with `reference="same"`, the reference model gets the policy's noise."""

    formats = UNPAIRED


class RewardTrainer(ChecksData, TRLRewardTrainer):
    """TRL's `RewardTrainer` with `noise=`."""

    formats = PREFERENCE


class GRPOTrainer(ChecksData, TRLGRPOTrainer):
    """TRL's `GRPOTrainer` with `noise=` in the training pass; generation and old log-probabilities are clean."""

    formats = PROMPTS


class RLOOTrainer(ChecksData, TRLRLOOTrainer):
    """TRL's `RLOOTrainer` with `noise=` in the training pass; generation and old log-probabilities are clean."""

    formats = PROMPTS
