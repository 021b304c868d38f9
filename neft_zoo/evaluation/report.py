"""Writing `evaluation.json`, and the table of a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from neft_zoo.console import show_table
from neft_zoo.evaluation.answer_results import AnswerText, Memorization
from neft_zoo.evaluation.effect_rows import effect_rows, share_text
from neft_zoo.evaluation.intervals import wilson
from neft_zoo.evaluation.options import WORDS
from neft_zoo.evaluation.results import EvaluationReport, Losses, LossSummary, Robustness
from neft_zoo.evaluation.text import GRAMS
from neft_zoo.files import make_folder, write_json

FILE = "evaluation.json"
HEADINGS = ("noise off", "train", "test")
R = TypeVar("R")
Row = tuple[str, str, str]


def save(report: EvaluationReport, folder: Path) -> Path:
    """Write `evaluation.json` into a folder, created if missing, and return its path.

    Raises:
        NoiseError: if it cannot be written.
        ValueError: if a number is not finite.
    """
    path = make_folder(folder) / FILE
    write_json(path, report.to_dict(), indent=1)
    return path


def show(report: EvaluationReport) -> None:
    """Print the table of a report."""
    show_table([HEADINGS, *rows(report)], numbers=(1, 2))


def rows(report: EvaluationReport) -> list[Row]:
    """Return rows of metric, value on training records and value on test records, as text; a dash if missing."""
    words, clip = report.options.words or WORDS, report.options.clip
    text = {
        **TEXT,
        f"log-diversity of {words} words, at most {clip:g}": lambda split: _format(split.diversity.log_diversity),
    }
    table = _loss_rows(report.losses)
    table += [_row(label, report.memorization, value) for label, value in MEMORIZATION.items()]
    table += [_row(label, report.text, value) for label, value in text.items()]
    table += [] if report.robustness is None else _robustness_rows(report.robustness)
    table += [(name, "-", _format(score.mean)) for name, score in (report.scores or {}).items()]
    for task, metrics in (report.tasks or {}).items():
        table += [(f"{task}, {name}", "-", _format(value)) for name, value in metrics.items() if "stderr" not in name]
    return table + [(label, "-", text) for label, text in effect_rows(report)]


def _loss_rows(losses: Losses | None) -> list[Row]:
    table = [_row(label, None if losses is None else vars(losses.end), value) for label, value in LOSSES.items()]
    if losses is not None and losses.best is not None:
        label = f"loss at step {losses.best.step}, the best"
        table.append((label, _format(losses.best.train.loss), _format(losses.best.test.loss)))
    return table


def _robustness_rows(robustness: Robustness) -> list[Row]:
    """Return the last point of each curve, the lowest alpha that flips tokens, changed prompts and length controls."""
    table = []
    if robustness.curves.replaced_tokens:
        point = robustness.curves.replaced_tokens[-1]
        table.append((f"loss, replaced_tokens {point.rate:g}", "-", _format(point.loss)))
    if robustness.curves.noise:
        noisy, least = robustness.curves.noise[-1], robustness.flips_from
        table.append((f"loss, noise {noisy.alpha:g}", "-", _format(noisy.loss)))
        table.append(("noise flips tokens from alpha", "-", "-" if least is None else f"{least:g}"))
    table += [(f"loss, template {name}", "-", _format(loss)) for name, loss in robustness.templates.items()]
    for name, answers in robustness.lengths.items():
        if name != "plain":  # the answers of the rows above
            label = f"answer, characters, {name.replace('_', ' ')}"
            table.append((label, "-", _format(answers.lengths.characters)))
    return table


LOSSES: Mapping[str, Callable[[LossSummary], str]] = {
    "loss, nats per token": lambda split: _format(split.loss),
    "perplexity": lambda split: _format(split.perplexity),
    "calibration error": lambda split: _format(split.calibration_error),
}
MEMORIZATION: Mapping[str, Callable[[Memorization], str]] = {
    "ROUGE-L": lambda split: _format(split.rouge_l),
    "BLEU": lambda split: _format(split.bleu),
    "extracted from the prompt": lambda split: _share(split.exact, split.records),
    "extracted from 50 tokens": lambda split: _share(split.prefix, split.records),
}
TEXT: Mapping[str, Callable[[AnswerText], str]] = {
    "answer, characters": lambda split: _format(split.lengths.characters),
    "answer, words": lambda split: _format(split.lengths.words),
    "answer, tokens": lambda split: _format(split.lengths.tokens),
    "answers that never end": lambda split: _share(split.unended, split.answers),
    **{f"{n}-gram repetition": lambda split, n=n: _format(split.diversity.repetition[str(n)]) for n in GRAMS},
}


def _row(label: str, splits: Mapping[str, R] | None, text: Callable[[R], str]) -> Row:
    train, test = (text(splits[name]) if splits and name in splits else "-" for name in ("train", "test"))
    return label, train, test


def _share(share: float | None, count: int) -> str:
    """Return a share of so many records or answers with its interval, since one of a few says little."""
    return "-" if share is None else f"{share_text(share, wilson(share, count))} of {count}"


def _format(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
