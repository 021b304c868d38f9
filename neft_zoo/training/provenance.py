"""Provenance: `noise.json` in every checkpoint records its noise, and a resumed run must use the same."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from transformers.trainer_utils import get_last_checkpoint

from neft_zoo.errors import NoiseError, shown
from neft_zoo.files import replacing, write_json
from neft_zoo.registry.strategy import Strategy

FILE = "noise.json"
STATE = "trainer_state.json"


def provenance(strategy: Strategy) -> dict[str, Any]:
    """Return the content of `noise.json`: the strategy's name, arguments and version, and the package's version."""
    try:
        arguments = strategy.to_dict()
    except NoiseError:
        arguments = {"name": strategy.name}  # only the repr of a custom schedule can be saved
    name = arguments.pop("name")
    saved = {"name": name, "arguments": arguments, "version": strategy.version, "neft_zoo": version("neft-zoo")}
    return saved | ({"repr": repr(strategy)} if not strategy.version else {})


def write(folder: Path, strategy: Strategy) -> None:
    """Write `noise.json` whole or not at all.

    Raises:
        NoiseError: if it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / FILE, provenance(strategy))


def check(folder: Path, strategy: Strategy) -> None:
    """Raise if a folder has the `noise.json` of another strategy.

    Raises:
        NoiseError: if it has, or if the file cannot be read.
    """
    path = folder / FILE
    if not path.exists():
        return
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        theirs = {key: saved[key] for key in ("name", "arguments", "version")} | {"repr": saved.get("repr")}
        if [type(saved[key]) for key in ("name", "arguments", "version")] != [str, dict, int]:
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise NoiseError(
            f"{path} must hold the name, arguments and version of a strategy, but it is damaged."
        ) from None
    now = provenance(strategy)
    ours = {key: now[key] for key in ("name", "arguments", "version")} | {"repr": now.get("repr")}
    if theirs != ours:
        raise NoiseError(
            f"{folder} holds a run with noise {_described(theirs)}, got {_described(ours)}: "
            "resume with the same noise, or choose another output_dir."
        )


def _described(saved: dict[str, Any]) -> str:
    """Return the description of a saved strategy for messages."""
    arguments = ", ".join(f"{key}={shown(value)}" for key, value in saved["arguments"].items())
    return saved["repr"] or f"{saved['name'][:80]}({arguments}) version {shown(saved['version'])}"


def is_complete(checkpoint: Path) -> bool:
    """Return whether a checkpoint is complete: transformers writes the trainer's state last."""
    try:
        return isinstance(json.loads((checkpoint / STATE).read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False


def last_complete(output_dir: Path) -> Path | None:
    """Return the newest complete checkpoint, or None."""
    complete = [path for path in output_dir.glob("checkpoint-*") if path.name[11:].isdecimal() and is_complete(path)]
    return max(complete, key=lambda path: int(path.name[11:]), default=None)


def check_run(output_dir: Path, resume_from_checkpoint: str | Path | bool | None, strategy: Strategy) -> Path | None:
    """Return the checkpoint to resume from, or None for a new run; `True` means the last complete one.

    Raises:
        NoiseError: if the run would continue or overwrite a run of another strategy, or if the checkpoint is
            incomplete.
    """
    last = get_last_checkpoint(str(output_dir)) if output_dir.is_dir() else None
    resumed = last_complete(output_dir) if resume_from_checkpoint is True else resume_from_checkpoint
    if resume_from_checkpoint is True and resumed is None:
        raise NoiseError(
            f"resume_from_checkpoint needs a complete checkpoint in output_dir, got none in {output_dir}."
        )
    for folder in (output_dir, last, resumed):
        if folder:
            check(Path(folder), strategy)
    if resumed and not is_complete(Path(resumed)):
        raise NoiseError(
            f"resume_from_checkpoint must be a complete checkpoint, got {resumed}, whose {STATE} is missing or torn."
        )
    return Path(resumed) if resumed else None


def tag_model_card(card: Path, strategy: Strategy) -> None:
    """Add the noise to a model card, once."""
    if not card.exists():
        return
    loaded = ModelCard.load(card)
    tags = loaded.data.get("tags") or []
    loaded.data["tags"] = [*dict.fromkeys([*tags, "neft-zoo", strategy.name])]
    heading = "### Embedding noise"
    if heading not in loaded.text:
        arguments = "".join(f", {name} = `{value!r}`" for name, value in strategy.arguments.items())
        loaded.text += f"\n\n{heading}\n\nTrained with `{strategy.name}`{arguments} (neft-zoo).\n"
    with replacing(card) as partial:
        loaded.save(partial)
