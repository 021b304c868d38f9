"""TRL's `DistillationTrainer` with `noise=`, in its own module because older TRL versions do not have it."""

from __future__ import annotations

from neft_zoo.training.hf_internals import require_trl

require_trl("1.16")  # isort: split

from trl.trainer.distillation_trainer import DistillationTrainer as TRLDistillationTrainer

from neft_zoo.training.mixin import NoiseMixin


class DistillationTrainer(NoiseMixin, TRLDistillationTrainer):
    """TRL's `DistillationTrainer` with `noise=` in the student's pass; the teacher and all generation are clean."""
