"""The page of all results: tables that stand by themselves, and what assets/compare.js needs to draw and sort them."""

from __future__ import annotations

from markupsafe import Markup

from neft_zoo.compare.experiment import CHOSEN_BY, POINTS, Column, Experiment, Row
from neft_zoo.compare.formats import interval_text
from neft_zoo.compare.metrics import metric
from neft_zoo.compare.plots import forest
from neft_zoo.compare.reference import find_reference
from neft_zoo.compare.samples import same_data, samples
from neft_zoo.compare.statistics import MANY
from neft_zoo.compare.tables import REFERENCE, reference_sentence
from neft_zoo.config.recipe import PLACEHOLDER

from .tables import difference_text, macros, run_links, typeset

FAMILIES = ("single pass", "consistency", "adversarial", "weights", "length", "control")
OPTIONS = (
    ("model_name_or_path", "model"),
    ("dataset_name", "data"),
    ("num_train_epochs", "epochs"),
    ("max_steps", "steps"),
    ("learning_rate", "learning rate"),
    ("per_device_train_batch_size", "records per batch"),
    ("train_records", "records drawn per seed"),
    ("max_length", "longest record in tokens"),
    ("packing", "packing"),
    ("use_peft", "LoRA"),
)
EXPLAINED = f"""
**How to read it.** A cell holds the mean over the seeds, and below it the difference to `none` with its 95 % interval:
row less `none`, paired by seed (Student's t below {MANY} seeds, bootstrap from there); where runs have the losses of
their records, a second interval is over these too. Rows differ in how many seeds
they have, and seeds differ: compare differences, not means. Losses are in nats per graded
token with the noise off. *At the best point* is each run's own evaluation with the lowest test loss, chosen by that
loss in every row alike; all other metrics are taken at the end. With one evaluation an epoch that point is coarse, and
differences there of a hundredth may be due to where evaluations lie. The gap is test loss less train loss: what was
learned by heart. *Compute* is tokens times passes over those of `none`. At *equal steps* every row sees the data
equally often; at *equal compute* a row of k passes trains for 1/k of the steps, which where training overfits is a
regularizer by itself: a row is compared with plain training for as many steps, where that was run.
**Bold**: better than the baseline; *italics*: worse; the title of a cell says *practically the same* or *undecided*
where it has no mark, and what could have been seen. Below a table, where plain training was run at several lengths,
every row stands against the best of them. Verdicts are corrected by Holm's method over the rows that answer
one question: strategies at their defaults, the values of one strategy, lengths of plain training, controls.
[How runs are compared](comparison.md).
"""
NOT_RUN = "Not run: `docs/results` holds no finished comparison. `neft-zoo compare` makes one.\n"


def page(experiments: list[Experiment], notes: list[str]) -> str:
    """Return the page in Markdown, its tables in HTML."""
    head = "---\nhide: [navigation, toc]\nsearch:\n  exclude: true\n---\n\n# Compare\n"
    remarks = [f"* {note}" for note in (same_data(experiments), *notes) if note]
    if not experiments:
        return "\n".join([head, NOT_RUN, *remarks]) + "\n"
    runs = sum(len(row.runs) for experiment in experiments for row in experiment.rows)
    plural = "" if len(experiments) == 1 else "s"
    intro = (
        f"Every run in this repository: {runs} in {len(experiments)} experiment{plural}, made by "
        "`sh recipes/results/run.sh`. Names lead to the strategies, seeds to the record of a run with its options, "
        "versions, commit and history. [What the paper found](findings.md) is checked on a page of its own. "
        "`lat` ran at `layers=[2]`: its default is the fifth layer, and the model has four."
    )
    sections = "\n\n".join(section(experiment) for experiment in experiments)
    return "\n\n".join([head, intro, controls(experiments), sections, EXPLAINED, *remarks]) + "\n"


def controls(experiments: list[Experiment]) -> Markup:
    """Return what the script shows and fills; without it, it stays hidden."""
    present = {row.family for experiment in experiments for row in experiment.rows}
    return macros("compare.html.j2").controls(experiments, [name for name in FAMILIES if name in present]).strip()


def section(experiment: Experiment) -> Markup:
    """Return an experiment: setting, a figure that needs no script, and its table."""
    figures = [forest(experiment, (CHOSEN_BY, when)) for when in POINTS]
    columns = experiment.columns
    heads = [_head(column) for column in columns]
    lines = [_line(row, columns) for row in experiment.rows]
    about, best = f"{samples(experiment)} On {setting(experiment)}.", reference(experiment)
    return macros("compare.html.j2").section(experiment, about, figures, heads, lines, best).strip()


def reference(experiment: Experiment) -> dict[str, object] | None:
    """Return what rows are against the best plain run of any length, None where only one length was run."""
    found = find_reference(experiment)
    if found is None:
        return None
    digits = metric(CHOSEN_BY).digits
    rows = [(row.label, interval_text(each, digits), verdict.text(digits)) for row, each, verdict in found.rows]
    return {"heading": REFERENCE, "sentence": reference_sentence(found), "rows": rows}


def setting(experiment: Experiment) -> str:
    """Return devices, options and commits of an experiment in words."""
    options = ", ".join(
        f"{name} {_spell(experiment.config[key])}" for key, name in OPTIONS if experiment.config.get(key) is not None
    )
    records = [record for row in experiment.rows for _, record in row.runs]
    devices = ", ".join(sorted({str(record.device) for record in records}))
    commits = ", ".join(sorted({record.commit[:7] for record in records if record.commit}))
    return f"{devices}; {options}{f'; made at commit {commits}' if commits else ''}"


def _spell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value).removeprefix(f"{PLACEHOLDER}/")


def _head(column: Column) -> dict[str, object]:
    name, when = column
    place = f" {POINTS[when]}" if when == "best" or name == CHOSEN_BY else ""
    return {"key": f"{name}.{when}", "kind": metric(name), "place": place}


def _line(row: Row, columns: list[Column]) -> dict[str, object]:
    cells = [_cell(row, column) for column in columns]
    return {"row": row, "cells": cells, "compute": typeset(row.compute, 2), "links": run_links(row, "")}


def _cell(row: Row, column: Column) -> dict[str, object]:
    """Return the numbers of a cell for the script, and its text for readers."""
    cell, kind = row.cells.get(column), metric(column[0])
    if cell is None or cell.mean is None:
        return {"data": {}, "text": "-"}
    data, text, each = {"value": f"{cell.mean:.5g}"}, typeset(cell.mean, kind.digits), cell.difference
    if each is None:
        return {"data": {**data, "diff": "0"}, "text": text}
    if each.mean is None:
        return {"data": data, "text": text}
    data["diff"] = f"{each.mean:.4g}"
    if each.low is not None and each.high is not None:
        data |= {"low": f"{each.low:.4g}", "high": f"{each.high:.4g}"}
    word = cell.verdict.word if cell.verdict else "not tested"
    mark = {"better": "strong", "worse": "em"}.get(word, "")
    title = f"{cell.seeds} seeds; baseline {typeset(cell.baseline, kind.digits)}; "
    title += cell.verdict.text(kind.digits) if cell.verdict else word
    return {"data": data, "text": text, "title": title, "mark": mark, "below": difference_text(cell, kind)}
