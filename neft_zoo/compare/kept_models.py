"""Trained models that a comparison keeps, so that a run can be evaluated again without training."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from neft_zoo.compare import results
from neft_zoo.compare.fingerprint import digest, fingerprint
from neft_zoo.compare.records import RunRecord
from neft_zoo.training.hf_internals import load_weights

if TYPE_CHECKING:
    from transformers import Trainer

RUN = "run.json"  # written last: without it, the run was interrupted
# Fields measured by a run's training; all others are known before it.
TRAINED = ("history", "steps", "device", "cpu_s", "wall_s", "measuring_s", "training_loss", "tokens", "end", "best")
TRAINED += ("record_losses",)


def folder_of(folder: Path, record: RunRecord) -> Path:
    """Return the folder of a run's model, which is the same for every evaluation of it."""
    settings = {name: value for name, value in record.config.items() if name != "evaluation"}
    key = digest([fingerprint(settings), record.row, record.seed, record.share, record.versions])
    return folder / record.recipe.name / f"{results.path_of(folder, record.name, record.row, record.seed).stem}-{key}"


def keep(trainer: Trainer, record: RunRecord, folder: Path) -> None:
    """Save the trained model and the measurements of its training."""
    trainer.save_model(str(folder))
    results.write(folder / RUN, record)


def restore(trainer: Trainer, record: RunRecord, folder: Path) -> bool:
    """Load a kept model and its training's measurements into a trainer and a record; return whether one was found."""
    if not (folder / RUN).exists():
        return False
    trained = results.read(folder / RUN)
    for each in fields(RunRecord):
        if each.name in TRAINED:
            setattr(record, each.name, getattr(trained, each.name))
    load_weights(trainer, folder)
    return True
