"""The page of results: a table that needs no script, and the data with which assets/compare.js shows others."""

from __future__ import annotations

import json

from markupsafe import Markup

from neft_zoo.compare.experiment import Experiment
from neft_zoo.compare.formats import markdown_text

from .data import chosen
from .results import KINDS, against_plain, results_table
from .tables import macros, table
from .wants import leading, short
from .words import about, same_data, setting, title

HEAD = "---\nhide: [navigation, toc]\nsearch:\n  boost: 0.5\n---\n\n# Results\n"
EXPLAINED = """
## How to read it

A number is the mean over the seeds of row **minus the baseline**, paired by seed, with its 95 % interval below
(Student's t); if runs have losses per test record, a second interval is over records too. The baseline is `none`,
plain training; at equal compute it is plain training for as many steps. Its own line shows means. In the chart ● is
the end of training and ◇ the *best checkpoint*, each run's own evaluation with the lowest test loss; the axis spans
the 10th to the 90th percentile of the differences, and an arrow stands for a point outside. The figure below the
table has all rows minus `none`, whatever their baseline; its line joins those that no row of at most their compute
beats. All other metrics are measured at the end. Losses are in nats per graded token with the noise off; the gap is
test loss minus train loss, a measure of memorization; *compute* is tokens times passes relative to `none`.

Four verdicts: <span class="badge better">better</span> <span class="badge worse">worse</span>
<span class="badge same">practically the same</span> <span class="badge undecided">undecided</span>. They combine the
interval with a margin below which a difference has no practical meaning, corrected over the rows that answer one
question. [How runs are compared](comparison.md#the-verdict) has the rule, and [Findings](findings.md) compares the
results with the NEFTune paper.
"""
NOT_RUN = "Not run: `docs/results` holds no finished comparison. `neft-zoo compare` makes one.\n"


def page(experiments: list[Experiment], notes: list[str]) -> str:
    """Return the page in Markdown, with its table in HTML."""
    remarks = "\n".join(f"* {note}" for note in notes)
    first = leading(experiments)
    if first is None:
        return f"{HEAD}\n{NOT_RUN}\n{remarks}\n"
    runs = sum(len(row.runs) for experiment in experiments for row in experiment.rows)
    plural = "" if len(experiments) == 1 else "s"
    intro = (
        f"{runs} runs in {len(experiments)} experiment{plural}, all in this repository. One row stands for each idea; "
        "the others, and every metric, are behind the switches. What you see is in the address: it can be shared."
    )
    parts = [HEAD, intro, controls(experiments, first), section(first), *references(experiments), EXPLAINED]
    return "\n\n".join([*parts, "## Files", files(experiments), same_data(experiments), remarks]) + "\n"


def references(experiments: list[Experiment]) -> list[str]:
    """Return every experiment's rows compared with its best plain run, if there are several lengths."""
    texts = [(title(each), against_plain(each, each.rows)) for each in experiments]
    found = [f"* **{name}**: {text}" for name, text in texts if text]
    return ["## Against plain training of any length", "\n".join(found)] if found else []


def controls(experiments: list[Experiment], first: Experiment) -> Markup:
    """Return the controls that the script shows and fills; without it, they stay hidden."""
    named = [(each.key, title(each)) for each in sorted(experiments, key=lambda each: each is not first)]
    return Markup(macros("compare.html.j2").controls(named, first.key, json.dumps(KINDS)).strip())  # type: ignore[attr-defined]


def section(experiment: Experiment) -> Markup:
    """Return an experiment's short table, with its setting."""
    caption = f"{title(experiment)}: paired differences to the baseline with 95 % intervals"
    shown = results_table(short(experiment), chosen(experiment), caption)
    words = f"{title(experiment)}: {about(experiment)}."
    return Markup(macros("compare.html.j2").section(words, experiment.key, shown).strip())  # type: ignore[attr-defined]


def files(experiments: list[Experiment]) -> str:
    """Return the table of experiments, with links to their numbers."""
    lines = []
    for each in experiments:
        words = [markdown_text(text) for text in (title(each), setting(each))]
        lines.append((*words, str(len(each.rows)), f"[CSV](data/{each.key}.csv), [JSON](data/{each.key}.json)"))
    whole = "[All experiments in one CSV](data/results.csv). Every run has a JSON of its own with options, versions, "
    whole += "commit, device and history; the number of runs in a row leads to them."
    return f"{table(('experiment', 'setting', 'rows', 'numbers'), lines)}\n\n{whole}"
