"""What a metric is called, its unit, and which direction is good; a metric without a line here is shown by its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """How to show a metric.

    Attributes:
        label: its name in words.
        unit: what it is counted in, "" for a plain ratio.
        better: which direction is good, None where neither is.
        digits: decimal places.
        cost: whether it is what a run costs and not what it reaches.
    """

    label: str
    unit: str = ""
    better: Literal["lower", "higher"] | None = None
    digits: int = 3
    cost: bool = False


# In the order of the columns.
METRICS = {
    "test_loss": Metric("test loss", "nats per token", "lower", 4),
    "train_loss": Metric("train loss", "nats per token", None, 4),
    "gap": Metric("gap, test less train", "nats per token", "lower", 4),
    "test_accuracy": Metric("accuracy, test", "share of tokens", "higher"),
    "train_accuracy": Metric("accuracy, train", "share of tokens"),
    "test_calibration_error": Metric("calibration error", "", "lower"),
    "train_calibration_error": Metric("calibration error, train", ""),
    "memorization_rouge_l": Metric("ROUGE-L on train prompts", "", "lower"),
    "memorization_bleu": Metric("BLEU on train prompts", "", "lower"),
    "memorization_exact": Metric("extracted from the prompt", "share of records", "lower"),
    "memorization_prefix": Metric("extracted from a prefix", "share of records", "lower"),
    "test_rouge_l": Metric("ROUGE-L on test prompts", "", "higher"),
    "test_bleu": Metric("BLEU on test prompts", "", "higher"),
    "answer_words": Metric("answer length", "words", None, 1),
    "answer_tokens": Metric("answer length", "tokens", None, 1),
    "answer_characters": Metric("answer length", "characters", None, 1),
    "unended": Metric("answers that never end", "share", "lower"),
    "repetition_2": Metric("2-gram repetition", "share", "lower"),
    "repetition_3": Metric("3-gram repetition", "share", "lower"),
    "repetition_4": Metric("4-gram repetition", "share", "lower"),
    "log_diversity": Metric("log-diversity", "nats", "higher", 2),
    "wall_s": Metric("training time", "s", "lower", 1, cost=True),
    "peak_memory_mb": Metric("peak memory", "MiB", "lower", 0, cost=True),
}
ORDER = {name: place for place, name in enumerate(METRICS)}


def metric(name: str) -> Metric:
    """Return how to show a metric, one nobody has described too."""
    return METRICS.get(name) or Metric(name.replace("_", " "))


def ordered(names: set[str]) -> list[str]:
    """Return names in the order of the columns; unknown ones stand before the costs, by alphabet."""
    last_result = max(place for name, place in ORDER.items() if not METRICS[name].cost)
    return sorted(names, key=lambda name: (ORDER.get(name, last_result + 0.5), name))
