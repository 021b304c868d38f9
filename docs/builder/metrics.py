"""What a metric is called, its unit, and which direction is good; what has no line here goes by its name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Metric:
    """How to show a metric.

    Attributes:
        label: its name in words.
        unit: what it is counted in, "" for a plain ratio.
        better: which direction is good, None where neither is.
        digits: decimal places.
        cost: whether it is what a run costs and not what it reaches.
        first: whether its column is shown before a reader chooses columns.
    """

    label: str
    unit: str = ""
    better: Better | None = None
    digits: int = 3
    cost: bool = False
    first: bool = False


# In the order of the columns.
METRICS = {
    "test_loss": Metric("test loss", "nats per token", "lower", first=True),
    "train_loss": Metric("train loss", "nats per token", first=True),
    "gap": Metric("gap, test less train", "nats per token", "lower", first=True),
    "best_epoch": Metric("epoch of the best point", digits=1, first=True),
    "test_accuracy": Metric("accuracy, test", "share of tokens", "higher", first=True),
    "test_calibration_error": Metric("calibration error, test", "", "lower"),
    "train_rouge_l": Metric("ROUGE-L on train prompts", "", "lower", first=True),
    "train_bleu": Metric("BLEU on train prompts", "", "lower", first=True),
    "train_exact": Metric("extracted from the prompt, train", "share of records", "lower"),
    "train_prefix": Metric("extracted from a prefix, train", "share of records", "lower", first=True),
    "test_rouge_l": Metric("ROUGE-L on test prompts", "", "higher"),
    "test_bleu": Metric("BLEU on test prompts", "", "higher"),
    "test_words": Metric("answer length, test", "words", None, 1, first=True),
    "test_unended": Metric("answers that never end, test", "share", "lower"),
    "test_repetition_2": Metric("2-gram repetition, test", "share", "lower", first=True),
    "test_log_diversity": Metric("log-diversity, test", "nats", "higher", 2),
    "cpu_s": Metric("CPU time of training", "s", "lower", 1, cost=True, first=True),
    "wall_s": Metric("training time", "s", "lower", 1, cost=True, first=True),
    "peak_memory_mb": Metric("peak memory", "MiB", "lower", 0, cost=True, first=True),
}
ORDER = {name: place for place, name in enumerate(METRICS)}
# What is measured on several sets of records has one line, and the set's name behind the label.
SETS = {"train": "train", "test": "test", "asked_for_longer": "longer asked for", "end_blocked": "end blocked"}
ON_A_SET = {
    "accuracy": Metric("accuracy", "share of tokens"),
    "calibration_error": Metric("calibration error"),
    "exact": Metric("extracted from the prompt", "share of records"),
    "prefix": Metric("extracted from a prefix", "share of records"),
    "characters": Metric("answer length", "characters", None, 1),
    "words": Metric("answer length", "words", None, 1),
    "tokens": Metric("answer length", "tokens", None, 1),
    "unended": Metric("answers that never end", "share", "lower"),
    "log_diversity": Metric("log-diversity", "nats", "higher", 2),
    **{f"repetition_{n}": Metric(f"{n}-gram repetition", "share", "lower") for n in (1, 2, 3, 4)},
}


def metric(name: str) -> Metric:
    """Return how to show a metric, one nobody has described too."""
    if name in METRICS:
        return METRICS[name]
    for prefix, told in SETS.items():
        known = ON_A_SET.get(name.removeprefix(f"{prefix}_")) if name.startswith(f"{prefix}_") else None
        if known:
            return replace(known, label=f"{known.label}, {told}")
    words = name.replace("_", " ")
    return Metric(words, "nats per token", "lower") if name.endswith("_loss") else Metric(words)


def ordered(names: set[str]) -> list[str]:
    """Return names in the order of the columns; unknown ones stand before the costs, by alphabet."""
    last_result = max(place for name, place in ORDER.items() if not METRICS[name].cost)
    return sorted(names, key=lambda name: (ORDER.get(name, last_result + 0.5), name))
