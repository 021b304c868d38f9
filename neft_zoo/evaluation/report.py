"""The report: one JSON file, a short table, and what both call things."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from neft_zoo.evaluation.options import WORDS
from neft_zoo.evaluation.text import GRAMS

FILE = "evaluation.json"


def save(report: Mapping[str, Any], folder: Path) -> Path:
    """Write the report whole or not at all and return its path; a number that is not finite is refused."""
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    return whole(folder / FILE, lambda path: path.write_text(text, encoding="utf-8"))


def whole(path: Path, write: Callable[[Path], Any]) -> Path:
    """Write a file beside its place and rename it, so that nobody ever reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}.partial.{path.name}")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def rows(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return metric, training records and test records, as text; what is missing is a dash."""
    losses: Any = report["losses"] or {"end": None, "best": None}
    table = [_row(label, losses["end"], key) for label, key in LOSSES]
    if losses["best"] is not None:
        table.append(_row(f"loss at step {losses['best']['step']}, the best", losses["best"], "loss"))
    table += [_row(label, report["memorization"], key) for label, key in MEMORIZATION]
    table += [_row(label, report["text"], *keys) for label, *keys in TEXT]
    words, clip = report["options"]["words"] or WORDS, report["options"]["clip"]
    table.append(
        _row(f"log-diversity of {words} words, at most {clip:g}", report["text"], "diversity", "log_diversity")
    )
    table += _robust_rows(report["robustness"] or {})
    for name, found in (report["scores"] or {}).items():
        table.append((name, "-", _text(found["mean"])))
    for task, metrics in (report["tasks"] or {}).items():
        table += [(f"{task}, {name}", "-", _text(value)) for name, value in metrics.items() if "stderr" not in name]
    return table


def _robust_rows(robust: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the far end of each curve, where flips start, other prompts, and the length controls."""
    table = []
    for name, points in (robust.get("curves") or {}).items():
        worst = points[-1]
        key = next(iter(worst))
        table.append((f"loss, {name} {worst[key]:g}", "-", _text(worst["loss"])))
    if "noise" in (robust.get("curves") or {}):
        start = robust["flips_from"]
        table.append(("noise flips tokens from alpha", "-", "-" if start is None else f"{start:g}"))
    for name, loss in (robust.get("templates") or {}).items():
        table.append((f"loss, template {name}", "-", _text(loss)))
    for name, found in (robust.get("lengths") or {}).items():
        if name != "plain":  # the answers of the rows above
            table.append((f"answer, characters, {name.replace('_', ' ')}", "-", _text(found["lengths"]["characters"])))
    return table


LOSSES = (
    ("loss, nats per token", "loss"),
    ("perplexity", "perplexity"),
    ("calibration error", "calibration_error"),
)
MEMORIZATION = (
    ("ROUGE-L", "rouge_l"),
    ("BLEU", "bleu"),
    ("extracted from the prompt", "exact"),
    ("extracted from 50 tokens", "prefix"),
)
TEXT = (
    *((f"answer, {unit}", "lengths", unit) for unit in ("characters", "words", "tokens")),
    ("answers that never end", "unended"),
    *((f"{n}-gram repetition", "diversity", "repetition", str(n)) for n in GRAMS),
)


def show(report: Mapping[str, Any]) -> None:
    """Print the table."""
    cells = [("noise off", "train", "test"), *rows(report)]
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        width = max(len(row[0]) for row in cells)
        print("\n".join(f"{row[0]:<{width}}  {row[1]:>9}  {row[2]:>9}" for row in cells))
        return
    table = Table()
    for column, cell in enumerate(cells[0]):
        table.add_column(cell, justify="right" if column else "left")
    for row in cells[1:]:
        table.add_row(*row)
    Console().print(table)


def _row(label: str, splits: Mapping[str, Any] | None, *keys: str) -> tuple[str, str, str]:
    return label, *(_text(_find(splits, split, *keys)) for split in ("train", "test"))  # type: ignore[return-value]


def _find(found: Any, *keys: str) -> Any:
    for key in keys:
        found = None if found is None else found.get(key)
    return found


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
