"""The snippets that a written page can request as `{{ name words }}`, made from package and results."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from neft_zoo.compare.experiment import Column, Experiment, Row
from neft_zoo.noise.distributions import Uniform

from . import chooser, findings, front, papers, playground, stock, strength, sweep, tallies
from .results import results_table
from .words import setting, title

ASKED = re.compile(r"^\{\{ (\w+)((?: [\w*.]+)*) \}\}$", re.MULTILINE)
NOT_RUN = "*Not run here.*"
COLUMNS: tuple[Column, ...] = (("test_loss", "end"), ("test_loss", "best"))


@dataclass(frozen=True)
class Asked:
    """A request for a snippet.

    Attributes:
        experiments: all experiments.
        words: the words after the name.
        up: relative path from the page to the site's root.
    """

    experiments: list[Experiment]
    words: list[str]
    up: str = ""


def fill(markdown: str, experiments: list[Experiment], up: str = "") -> str:
    """Return a page with its snippets filled in.

    Raises:
        KeyError: if a snippet does not exist.
    """
    return ASKED.sub(lambda match: SNIPPETS[match[1]](Asked(experiments, match[2].split(), up)), markdown)


def measured(asked: Asked) -> str:
    """Return the effect of strategies or controls on the test loss, one table per data set.

    A name selects the row with default arguments, and with `*` appended every row; `lengths` selects plain training of
    other lengths. Words after `on` are data sets; without them, all are shown.
    """
    names = asked.words
    names, where = (names[: names.index("on")], names[names.index("on") + 1 :]) if "on" in names else (names, [])
    parts = []
    for experiment in asked.experiments:
        if where and experiment.name.split("/")[-1] not in where:
            continue
        if rows := [row for row in experiment.rows if row.cells and _is_asked(row, experiment, names)]:
            rows = rows if experiment.none in rows else [experiment.none, *rows]
            columns = [column for column in COLUMNS if column in experiment.none.cells]
            parts.append(results_table(rows, columns, f"{title(experiment)}: {setting(experiment, rows)}", asked.up))
    return "\n\n".join(parts) or NOT_RUN


def _is_asked(row: Row, experiment: Experiment, names: list[str]) -> bool:
    if row.entry is None and _repeats_baseline(row):
        return False
    name = "lengths" if row.is_other_length else row.entry or re.split("[ =]", row.label)[0]
    is_plain = row.entry is None or row is experiment.find(row.entry)
    return f"{name}*" in names or (name in names and is_plain)


def _repeats_baseline(row: Row) -> bool:
    """Return whether a control has the recipe's own value, so that its runs equal those of `none`."""
    verdicts = [cell.verdict for column in COLUMNS if (cell := row.cells.get(column)) is not None]
    return all(each is not None and each.word == "identical" for each in verdicts)


def noise_ratio(asked: Asked) -> str:
    """Return the signal-to-noise ratio of uniform noise: words are embedding rms, width, alpha, then lengths."""
    embedding, width, alpha, *lengths = (float(word) for word in asked.words)
    rms = [alpha * Uniform().rms / math.sqrt(length * width) for length in lengths]
    texts = [
        f"{20 * math.log10(embedding / each):.1f} dB at {length:g} tokens"
        for each, length in zip(rms, lengths, strict=True)
    ]
    return f"Alpha {alpha:g}, embeddings of rms {embedding:g} and width {width:,.0f}: {' and '.join(texts)}."


SNIPPETS: dict[str, Callable[[Asked], str]] = {
    "measured": measured,
    "strength": lambda asked: strength.compared(asked.experiments, asked.words) or NOT_RUN,
    "findings": lambda asked: findings.summary(asked.experiments, intervals=False),
    "sweep": lambda asked: sweep.figures(asked.experiments) or NOT_RUN,
    "tally": lambda asked: tallies.tally(asked.experiments) or NOT_RUN,
    "unchanged": lambda asked: tallies.unchanged(asked.experiments) or NOT_RUN,
    "early_stopping": lambda asked: front.early_stopping(asked.experiments),
    "noise_ratio": noise_ratio,
    "chooser": lambda asked: chooser.form(asked.experiments),
    "cases": lambda _: chooser.lines(),
    "stock_chart": lambda _: stock.chart(),
    "packed_documents": lambda _: stock.packed_documents(),
    "citation": lambda _: papers.citation(),
    "picture": lambda _: front.picture(),
    "playground": lambda _: playground.script(),
}
