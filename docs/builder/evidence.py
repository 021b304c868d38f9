"""What the results say of one strategy: sentences by verdict, tables and figures of its rows."""

from __future__ import annotations

from neft_zoo.compare.experiment import CHOSEN_BY, POINTS, Column, Experiment, Row
from neft_zoo.compare.formats import interval_text
from neft_zoo.compare.metrics import metric
from neft_zoo.compare.plots import forest
from neft_zoo.compare.records import When
from neft_zoo.compare.reference import find_reference
from neft_zoo.compare.samples import samples
from neft_zoo.compare.tables import REFERENCE, reference_sentence

from .tables import could_have_been_seen, difference_text, judged_text, run_links, table, typeset

SHOWN: tuple[Column, ...] = (("test_loss", "end"), ("test_loss", "best"), ("gap", "end"), ("train_rouge_l", "end"))
SHOWN += (("test_words", "end"), ("test_repetition_2", "end"))


def measured(name: str, experiments: list[Experiment]) -> str:
    """Return what the results say for a strategy and what against it, in sentences made by rule."""
    if name == "none":
        return "It is what all others are measured against."
    speaks: dict[str, list[str]] = {"For": [], "Against": [], "Neither": []}
    for experiment in experiments:
        rows = [row for row in experiment.rows if row.entry == name]
        for point, place in POINTS.items():
            by_verdict: dict[str, list[Row]] = {}
            for row in rows:
                cell = row.cells.get(("test_loss", point))
                if cell and cell.verdict:
                    by_verdict.setdefault(cell.verdict.word, []).append(row)
            for word, alike in by_verdict.items():
                side = {"better": "For", "worse": "Against"}.get(word, "Neither")
                seen = could_have_been_seen([row.cells["test_loss", point].verdict for row in alike], word)
                speaks[side].append(f"{experiment.title}, test loss {place}, {word}{seen}: {_listed(alike, point)}.")
        failed = [f"{row.failed} of {len(row.runs)} runs of `{row.label}` failed" for row in rows if row.failed]
        speaks["Against"] += [f"{experiment.title}: {each}." for each in failed]
    if not any(speaks.values()):
        return "Not run."
    lists = [f"**{side}**\n\n" + "\n".join(f"* {line}" for line in each) for side, each in speaks.items() if each]
    return "\n\n".join(lists)


def _listed(rows: list[Row], point: When) -> str:
    """Return rows with their differences; where there are many, the table below has them."""
    if len(rows) > 3:
        return ", ".join(f"`{row.label}`" for row in rows)
    kind = metric("test_loss")
    return "; ".join(f"`{row.label}` {difference_text(row.cells['test_loss', point], kind)}" for row in rows)


def results(name: str, experiments: list[Experiment]) -> str:
    """Return tables and figures of a strategy's rows; the baseline stands above them."""
    parts = []
    for experiment in experiments:
        rows = [row for row in experiment.rows if row.entry == name]
        if not rows:
            continue
        none = experiment.none
        columns = [column for column in SHOWN if column in experiment.columns]
        heads = ["row", *(f"{metric(m).label} {POINTS[p]}" for m, p in columns), "compute", "runs"]
        lines = []
        for row in [none, *(row for row in rows if row is not none)]:
            cells = [_cell(row, pair) for pair in columns]
            lines.append((f"`{row.label}`", *cells, typeset(row.compute, 2), run_links(row, "../")))
        parts += [f"### {experiment.title}", samples(experiment), table(heads, lines), against_plain(experiment, name)]
        parts += [forest(experiment, ("test_loss", point), [row.label for row in rows]) for point in POINTS]
    where = "[Compare](../compare.md) has all rows and metrics, and says how to read the numbers."
    return "\n\n".join(part for part in [*parts, where] if part) if parts else "Not run."


def against_plain(experiment: Experiment, name: str) -> str:
    """Return a sentence on a strategy's rows against the best plain run of any length, "" without several lengths."""
    reference = find_reference(experiment)
    if reference is None:
        return ""
    digits = metric(CHOSEN_BY).digits
    own = [(row, each, verdict) for row, each, verdict in reference.rows if row.entry == name]
    texts = [f"`{row.label}` {interval_text(each, digits)}, {verdict.text(digits)}" for row, each, verdict in own]
    return f"{REFERENCE}, {reference_sentence(reference)} Less that: {'; '.join(texts)}." if texts else ""


def _cell(row: Row, column: Column) -> str:
    cell, kind = row.cells.get(column), metric(column[0])
    if cell is None:
        return "-"
    mean = typeset(cell.mean, kind.digits)
    if cell.difference is None:
        return mean
    return f"{mean} against {typeset(cell.baseline, kind.digits)}<br><small>{judged_text(cell, kind)}</small>"
