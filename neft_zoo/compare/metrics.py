"""The table of metrics: label, unit, better direction and source of each.

To add a metric, add one row here and one function that measures it: in `measures.MEASURES` for every evaluation, in
`neft_zoo.evaluation` for the end of a run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Literal

from neft_zoo.compare.records import RunRecord, When
from neft_zoo.console import printable
from neft_zoo.errors import NoiseError, did_you_mean, shown
from neft_zoo.evaluation.effect_results import PromptRobustness, Quantization

Better = Literal["lower", "higher"]
# history: at every evaluation; evaluation: `neft-zoo evaluate` at the end; derived: from those two; cost: of the run.
Source = Literal["history", "evaluation", "derived", "cost"]
Derive = Callable[[RunRecord, When], "float | None"]
NATS = "nats per token"
HALVES = ("test_choosing_loss", "test_reporting_loss")  # over two halves of the test records


@dataclass(frozen=True)
class Metric:
    """A row of the table.

    Attributes:
        name: key in the results.
        label: name in words.
        unit: unit of the value, "" for a plain ratio.
        better: the better direction; None if neither is, for example for the training loss, which noise is meant to
            raise.
        margin: differences up to this size have no practical meaning; 0 if none is defined.
        digits: decimals on a page.
        source: where its value comes from.
        derive: computes a derived metric or a cost at one of a run's evaluations.
    """

    name: str
    label: str
    unit: str = ""
    better: Better | None = None
    margin: float = 0.0
    digits: int = 3
    source: Source = "evaluation"
    derive: Derive | None = None


def _gap(record: RunRecord, when: When) -> float | None:
    point = record.at(when)
    train, test = (point.metrics.get(name) if point else None for name in ("train_loss", "test_loss"))
    return None if train is None or test is None else test - train


def _best_epoch(record: RunRecord, when: When) -> float | None:
    return record.best.epoch if record.best is not None and when == "end" else None


def _chosen(record: RunRecord, when: When) -> float | None:
    """Return the loss on the reporting half at the evaluation with the lowest loss on the choosing half."""
    points = [point for point in record.history if None not in (point.metrics.get(half) for half in HALVES)]
    if when != "end" or not points:
        return None
    choosing, reporting = HALVES
    return min(points, key=lambda point: point[choosing])[reporting]


def _cost(name: str) -> Derive:
    return lambda record, when: getattr(record, name) if when == "end" else None


# Side effects, measured if they are among the evaluation's `parts`.
SIDE_EFFECTS = (
    Metric("general_text_loss", "loss, general text", NATS, "lower", 0.01),
    Metric("gsm8k_answers_loss", "loss, GSM8K answers", NATS, "lower", 0.01),
    Metric("rtn4_change", "loss added by 4-bit weights", NATS, "lower", 0.01),
    Metric("rtn3_change", "loss added by 3-bit weights", NATS, "lower", 0.01),
    Metric("nf4_change", "loss added by NF4 weights", NATS, "lower", 0.01),
    Metric("typing_errors_change", "loss added by typing errors in the prompt", NATS, "lower", 0.01),
    Metric("no_stop_words_change", "loss added by dropping the prompt's stop words", NATS, "lower", 0.01),
    Metric("shuffled_words_change", "loss added by shuffling the prompt's words", NATS, "lower", 0.01),
    Metric("safe_refused", "safe prompts refused", "share", "lower", 0.05),
    Metric("unsafe_refused", "unsafe prompts refused", "share", "higher", 0.05),
    Metric("safe_refusal_probability", "P(refusal opening), safe prompts", "", "lower", 0.02),
    Metric("unsafe_refusal_probability", "P(refusal opening), unsafe prompts", "", "higher", 0.02),
    Metric("ifeval_prompt_strict", "IFEval prompts, strict", "share", "higher", 0.02),
    Metric("ifeval_prompt_loose", "IFEval prompts, loose", "share", "higher", 0.02),
    Metric("ifeval_instruction_strict", "IFEval instructions, strict", "share", "higher", 0.02),
    Metric("ifeval_instruction_loose", "IFEval instructions, loose", "share", "higher", 0.02),
)
ROWS = (
    Metric("test_loss", "test loss", NATS, "lower", 0.01, source="history"),
    Metric(
        "chosen_loss",
        "test loss, checkpoint chosen on other records",
        NATS,
        "lower",
        0.01,
        3,
        "history",
        derive=_chosen,
    ),
    Metric("test_choosing_loss", "test loss, choosing half", NATS, "lower", 0.01, source="derived"),
    Metric("test_reporting_loss", "test loss, reporting half", NATS, "lower", 0.01, source="derived"),
    Metric("train_loss", "train loss", NATS, None, 0.01, source="history"),
    Metric("gap", "gap, test minus train", NATS, "lower", 0.01, source="derived", derive=_gap),
    Metric("best_epoch", "epoch of the best checkpoint", digits=1, source="derived", derive=_best_epoch),
    Metric("test_accuracy", "accuracy, test", "share of tokens", "higher", 0.005),
    Metric("test_calibration_error", "calibration error, test", "", "lower", 0.005),
    Metric("train_rouge_l", "ROUGE-L on train prompts", "", "lower", 0.01),
    Metric("train_bleu", "BLEU on train prompts", "", "lower", 0.01),
    Metric("train_exact", "extracted from the prompt, train", "share of records", "lower", 0.01),
    Metric("train_prefix", "extracted from a prefix, train", "share of records", "lower", 0.01),
    Metric("test_rouge_l", "ROUGE-L on test prompts", "", "higher", 0.01),
    Metric("test_bleu", "BLEU on test prompts", "", "higher", 0.01),
    Metric("test_words", "answer length, test", "words", None, 2.0, 1),
    Metric("test_unended", "answers that never end, test", "share", "lower", 0.02),
    Metric("test_repetition_2", "2-gram repetition, test", "share", "lower", 0.01),
    Metric("test_log_diversity", "log-diversity, test", "nats", "higher", 0.1, 2),
    *SIDE_EFFECTS,
    Metric("cpu_s", "CPU time of training", "s", "lower", 0, 1, "cost", _cost("cpu_s")),
    Metric("wall_s", "training time by the clock", "s", "lower", 0, 1, "cost", _cost("wall_s")),
    Metric("peak_memory_mb", "peak memory", "MiB", "lower", 0, 0, "cost", _cost("peak_memory_mb")),
)
# A metric that is measured on several sets of records has one row, and the set's name is appended to its label.
SETS = {"train": "train", "test": "test", "asked_for_longer": "longer asked for", "end_blocked": "end blocked"}
ON_A_SET = (
    Metric("accuracy", "accuracy", "share of tokens", None, 0.005),
    Metric("calibration_error", "calibration error", "", None, 0.005),
    Metric("exact", "extracted from the prompt", "share of records", None, 0.01),
    Metric("prefix", "extracted from a prefix", "share of records", None, 0.01),
    Metric("characters", "answer length", "characters", None, 10, 1),
    Metric("words", "answer length", "words", None, 2, 1),
    Metric("tokens", "answer length", "tokens", None, 3, 1),
    Metric("unended", "answers that never end", "share", "lower", 0.02),
    Metric("log_diversity", "log-diversity", "nats", "higher", 0.1, 2),
    *(Metric(f"repetition_{n}", f"{n}-gram repetition", "share", "lower", 0.01) for n in (1, 2, 3, 4)),
)
METRICS = {row.name: row for row in ROWS} | {
    f"{prefix}_{row.name}": replace(row, name=f"{prefix}_{row.name}", label=f"{row.label}, {words}")
    for prefix, words in SETS.items()
    for row in ON_A_SET
    if f"{prefix}_{row.name}" not in {known.name for known in ROWS}
}
ORDER = {row.name: place for place, row in enumerate(ROWS)}


def read_margins(margins: object) -> dict[str, float]:
    """Return a recipe's margins: a number per metric.

    Raises:
        NoiseError: if they are invalid.
    """
    if margins is None:
        return {}
    if not isinstance(margins, dict) or not all(map(_is_margin, margins.values())):
        raise NoiseError(f"margins must map metrics, such as test_loss, to numbers >= 0, got {shown(margins)}.")
    for name in map(str, margins):
        if name not in METRICS and not _is_measured_loss(name):
            raise NoiseError(f"margins must map metrics to numbers, got {shown(name)}{did_you_mean(name, METRICS)}")
    return {str(name): float(value) for name, value in margins.items()}


def _is_margin(value: object) -> bool:
    try:
        # YAML reads `1e-2` as a string.
        return isinstance(value, int | float | str) and not isinstance(value, bool) and 0 <= float(value) < math.inf
    except ValueError:
        return False


def _is_measured_loss(name: str) -> bool:
    """Return whether a name is that of a loss that the table does not list one by one."""
    listed = {f"{each.name}_loss" for kind in (Quantization, PromptRobustness) for each in fields(kind)}
    return name in listed or re.fullmatch(r"(noise|replaced_tokens|template)_.+_loss", name) is not None


def metric(name: str) -> Metric:
    """Return the row of a metric, or a new one labelled with its name if the table does not have it."""
    if name in METRICS:
        return METRICS[name]
    words = printable(name).replace("_", " ")
    return Metric(name, words, NATS, "lower", 0.01) if name.endswith("_loss") else Metric(name, words)


def ordered(names: Iterable[str]) -> list[str]:
    """Return names in the order of the table, with unknown ones in alphabetical order before the costs."""
    last_result = max(place for name, place in ORDER.items() if METRICS[name].source != "cost")
    return sorted(names, key=lambda name: (ORDER.get(name, last_result + 0.5), name))


def values(record: RunRecord, when: When) -> dict[str, float]:
    """Return all metrics of a run at an evaluation; answers, memorization and costs are always those of the end."""
    point = record.at(when)
    read: dict[str, float | None] = dict(point.metrics) if point else {}
    if when == "end":
        read |= record.evaluation or {}
    read |= {row.name: row.derive(record, when) for row in ROWS if row.derive is not None}
    return {name: value for name, value in read.items() if isinstance(value, int | float)}
