"""What a written page can ask for, as `{{ name words }}` on a line of its own: made from package and results."""

from __future__ import annotations

import re
from collections.abc import Callable

from neft_zoo.compare.experiment import POINTS, STEPS, Cell, Column, Experiment, Row
from neft_zoo.compare.metrics import metric

from . import findings, front, playground, strength, sweep, tallies
from .results import results_table
from .tables import difference_text
from .words import setting, title

ASKED = re.compile(r"^\{\{ (\w+)((?: [\w*]+)*) \}\}$", re.MULTILINE)
NOT_RUN = "*Not run here.*"
COLUMNS: tuple[Column, ...] = (("test_loss", "end"), ("test_loss", "best"))


def fill(markdown: str, experiments: list[Experiment]) -> str:
    """Return a page with what it asks for.

    Raises:
        KeyError: for something that nobody makes.
    """
    return ASKED.sub(lambda match: SNIPPETS[match[1]](experiments, match[2].split()), markdown)


def measured(experiments: list[Experiment], names: list[str]) -> str:
    """Return what strategies or controls did to the test loss, a table per data set.

    A name stands for the row of its default arguments, with `*` behind it for every row; `lengths` for plain training
    of other lengths. Words behind `on` are data sets; without them, all are shown.
    """
    names, where = (names[: names.index("on")], names[names.index("on") + 1 :]) if "on" in names else (names, [])
    parts = []
    for experiment in experiments:
        if where and experiment.name.split("/")[-1] not in where:
            continue
        if rows := [row for row in experiment.rows if row.cells and _is_asked(row, experiment, names)]:
            rows = rows if experiment.none in rows else [experiment.none, *rows]
            columns = [column for column in COLUMNS if column in experiment.columns]
            parts.append(results_table(experiment, rows, columns, f"{title(experiment)}: {setting(experiment)}"))
    return "\n\n".join(parts) or NOT_RUN


def _is_asked(row: Row, experiment: Experiment, names: list[str]) -> bool:
    name = "lengths" if row.is_shorter else row.entry or row.label.partition(" ")[0]
    is_plain = row.entry is None or row is experiment.find(row.entry)
    return f"{name}*" in names or (name in names and is_plain)


def headline(experiments: list[Experiment], names: list[str]) -> str:
    """Return what NEFTune did in each data set, in a sentence."""
    sentences = []
    for experiment in experiments:
        row = experiment.find("neft_uniform", alpha=findings.ALPHA) if experiment.budget == STEPS else None
        cells = [] if row is None else [row.cells.get(("test_loss", point)) for point in POINTS]
        if cells and all(cells):
            end, best = (_sentence(each) for each in cells if each)
            sentences.append(
                f"* **{title(experiment)}**: test loss {end} at the end of training, {best} at the best checkpoint."
            )
    if not sentences:
        return NOT_RUN
    lead = "`neft_uniform` at alpha 5 minus `none`, in nats per token with 95 % intervals:"
    return f"{lead}\n\n" + "\n".join(sentences)


def _sentence(cell: Cell) -> str:
    word = f" ({cell.verdict.word})" if cell.verdict else ""
    return difference_text(cell, metric("test_loss")) + word


SNIPPETS: dict[str, Callable[[list[Experiment], list[str]], str]] = {
    "measured": measured,
    "headline": headline,
    "strength": lambda experiments, names: strength.compared(experiments, names) or NOT_RUN,
    "findings": lambda experiments, _: findings.summary(experiments, intervals=False),
    "sweep": lambda experiments, _: sweep.figures(experiments) or NOT_RUN,
    "tally": lambda experiments, _: tallies.tally(experiments) or NOT_RUN,
    "unchanged": lambda experiments, _: tallies.unchanged(experiments) or NOT_RUN,
    "picture": lambda *_: front.picture(),
    "playground": lambda *_: playground.script(),
}
