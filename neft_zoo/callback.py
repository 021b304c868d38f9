"""Provenance: `noise.json` beside every checkpoint says which noise made it, and a resume must agree."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

import neft_zoo
from neft_zoo.errors import NoiseError
from neft_zoo.registry import Strategy

FILE = "noise.json"


def provenance(strategy: Strategy) -> dict[str, Any]:
    """Return what is saved of a strategy: name, arguments, entry version and package version."""
    try:
        arguments = strategy.to_dict()
    except NoiseError:
        arguments = {"name": strategy.name}  # a schedule function of the user's own: the repr is what can be kept
    name = arguments.pop("name")
    saved = {"name": name, "arguments": arguments, "version": strategy.version, "neft_zoo": neft_zoo.__version__}
    return saved | ({"repr": repr(strategy)} if not strategy.version else {})


def write(folder: Path, strategy: Strategy) -> None:
    """Write `noise.json` whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{FILE}.{os.getpid()}.partial"
    try:
        partial.write_text(json.dumps(provenance(strategy), indent=2) + "\n", encoding="utf-8")
        partial.replace(folder / FILE)
    finally:
        partial.unlink(missing_ok=True)


def check(folder: Path, strategy: Strategy) -> None:
    """Raise if `folder` belongs to a run of another strategy; a folder without `noise.json` says nothing.

    Raises:
        NoiseError: if it does, or if its `noise.json` cannot be read.
    """
    path = folder / FILE
    if not path.exists():
        return
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        theirs = {key: saved[key] for key in ("name", "arguments", "version")} | {"repr": saved.get("repr")}
    except (ValueError, KeyError, TypeError):
        raise NoiseError(
            f"{path} must hold the name, arguments and version of a strategy, but it is damaged."
        ) from None
    now = provenance(strategy)
    ours = {key: now[key] for key in ("name", "arguments", "version")} | {"repr": now.get("repr")}
    if theirs != ours:
        raise NoiseError(
            f"{folder} holds a run with noise {_spell(theirs)}, got {_spell(ours)}: "
            "resume with the same noise, or choose another output_dir."
        )


def _spell(saved: dict[str, Any]) -> str:
    arguments = ", ".join(f"{key}={value!r}" for key, value in saved["arguments"].items())
    return saved["repr"] or f"{saved['name']}({arguments}) version {saved['version']}"


class NoiseCallback(TrainerCallback):
    """Refuses a folder of another strategy before training starts and leaves `noise.json` in every checkpoint."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy

    def check(self, output_dir: str | Path, resume_from_checkpoint: str | Path | bool | None) -> None:
        """Raise if the run would go on, or write over, a run of another strategy."""
        check(Path(output_dir), self.strategy)
        last = get_last_checkpoint(str(output_dir)) if Path(output_dir).is_dir() else None
        resumed = last if resume_from_checkpoint is True else resume_from_checkpoint
        for folder in {folder for folder in (last, resumed) if folder}:
            check(Path(folder), self.strategy)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            write(Path(str(args.output_dir)), self.strategy)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            write(folder, self.strategy)
