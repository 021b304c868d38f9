"""What a written page can ask for, as `{{ name words }}` on a line of its own: made from package and results."""

from __future__ import annotations

import re
from collections.abc import Callable

from markupsafe import escape

from neft_zoo.compare.experiment import POINTS, STEPS, Cell, Experiment
from neft_zoo.compare.metrics import metric
from neft_zoo.compare.samples import same_data

from . import findings, front, playground, strength, sweep, tallies
from .tables import difference_text, judged_text, table, typeset

ASKED = re.compile(r"^\{\{ (\w+)((?: [\w*]+)*) \}\}$", re.MULTILINE)
NOT_RUN = "*Not run here.*"


def fill(markdown: str, experiments: list[Experiment]) -> str:
    """Return a page with what it asks for.

    Raises:
        KeyError: for something that nobody makes.
    """
    return ASKED.sub(lambda match: SNIPPETS[match[1]](experiments, match[2].split()), markdown)


def measured(experiments: list[Experiment], names: list[str]) -> str:
    """Return what strategies or controls did to the test loss, at equal steps and at equal compute.

    A name stands for the row of its default arguments, with `*` behind it for every row; `lengths` for plain training
    of other lengths. Words behind `on` are data sets; without them, all are shown.
    """
    lines = []
    names, where = (names[: names.index("on")], names[names.index("on") + 1 :]) if "on" in names else (names, [])
    for experiment in experiments:
        if where and experiment.name.split("/")[-1] not in where:
            continue
        for row in experiment.rows:
            name = "lengths" if row.is_shorter else row.entry or row.label
            plain = row.entry is None or row is experiment.find(row.entry)
            if not row.cells or not (f"{name}*" in names or (name in names and plain)):
                continue
            cells = [row.cells.get(("test_loss", point)) for point in POINTS]
            texts = ["-" if each is None else judged_text(each, metric("test_loss")) for each in cells]
            label = escape(row.label)
            link = f"[{label}](strategies/{row.entry}.md)" if row.entry else label
            lines.append((experiment.title, link, *texts, typeset(row.compute, 2)))
    heads = ("experiment", "row", *(f"test loss {point}" for point in POINTS.values()), "compute")
    return table(heads, lines) if lines else NOT_RUN


def headline(experiments: list[Experiment], names: list[str]) -> str:
    """Return what NEFTune did in each data set, in a sentence."""
    sentences = []
    for experiment in experiments:
        row = experiment.find("neft_uniform", alpha=findings.ALPHA) if experiment.budget == STEPS else None
        cells = [] if row is None else [row.cells.get(("test_loss", point)) for point in POINTS]
        if cells and all(cells):
            texts = (f"{place} {_sentence(cell)}" for place, cell in zip(POINTS.values(), cells, strict=True) if cell)
            sentences.append(f"* **{experiment.name}**, test loss: {'; '.join(texts)}.")
    if not sentences:
        return NOT_RUN
    lead = "`neft_uniform` at alpha 5 less `none`, in nats per token with 95 % intervals:"
    shared = same_data(experiments)
    return "\n".join([f"{lead}\n", *sentences, *([f"\n{shared}"] if shared else [])])


def _sentence(cell: Cell) -> str:
    kind = metric("test_loss")
    word = f", {cell.verdict.text(kind.digits)}" if cell.verdict else ""
    return difference_text(cell, kind) + word


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
