"""The page of all strategies: cards, grouped by purpose."""

from __future__ import annotations

import re

from neft_zoo import registry
from neft_zoo.compare.axes import axis_range
from neft_zoo.compare.experiment import POINTS, Experiment, Row
from neft_zoo.compare.formats import interval_text
from neft_zoo.compare.metrics import metric
from neft_zoo.registry.docstrings import argument_texts, prose

from .entries import cpu_ratio
from .results import MAIN, line_of
from .tables import macros, typeset
from .wants import grouped, leading
from .words import setting, title

HEAD = "---\nhide: [toc]\n---\n\n# Strategies\n"
INTRO = """
All strategies, grouped by purpose. A card has the test loss minus that of plain training, paired by seed with a 95 %
interval: ● at the end of training, ◇ at the best checkpoint; left of the line is better. One pass is the cost of plain
training. [Choose](choosing.md) turns your case into code; [Results](compare.md) has every number.
"""
CAUTIONS = re.compile(r"(?:^|(?<=[.;] ))((?:Not|Do not|Needs|It needs|Only)\b[^.]*\.)")


def page(experiments: list[Experiment]) -> str:
    """Return the page in Markdown, with its cards in HTML."""
    parts = [HEAD, INTRO]
    drawn = [row for name in registry.builtin_names() if (row := _shown(name, experiments)[1]) is not None]
    digits = metric(MAIN).digits
    measured = [cell for row in drawn for when in POINTS if (cell := row.cells.get((MAIN, when))) is not None]
    ends = axis_range([cell.difference for cell in measured], digits)
    cards = macros("entries.html.j2").cards  # type: ignore[attr-defined]
    for want, names in grouped().items():
        parts += [f"## {want.title}", want.text, cards([_card(name, experiments, ends) for name in names]).strip()]
    low, high = (typeset(end, digits, True) for end in ends)
    parts.append(f"All cards share one axis, from {low} to {high} nats per token.")
    if first := leading(experiments):
        parts.append(f"{title(first)}: {setting(first)}. A card of another experiment names it.")
    return "\n\n".join(parts) + "\n"


def _shown(name: str, experiments: list[Experiment]) -> tuple[Experiment | None, Row | None]:
    """Return the row of a strategy for its card: from the leading experiment, else from the first that has it."""
    first = leading(experiments)
    for experiment in sorted(experiments, key=lambda each: (each is not first, -len(each.rows))):
        rows = [row for row in experiment.rows if row.entry == name and row.baseline is not None and row.cells]
        row = experiment.find(name) if name != "none" else None
        if row is not None and row.cells or rows:
            return experiment, row if row is not None and row.cells else rows[0]
    return None, None


def _card(name: str, experiments: list[Experiment], ends: tuple[float, float]) -> dict[str, object]:
    entry, strategy = registry.entry(name), registry.make(name)
    experiment, row = _shown(name, experiments)
    passes = strategy.objective.passes
    line = line_of(row, [], ends, "", costs=False) if row else {"marks": [], "zero": 0, "says": "", "verdicts": []}
    cell = row.cells.get((MAIN, "end")) if row else None
    spent = cpu_ratio(row) if row else None
    runs = sum(len(each.records) for found in experiments for each in found.rows if each.entry == name)
    return {
        **{key: line[key] for key in ("marks", "zero", "says", "verdicts")},
        "name": name,
        "summary": entry.summary,
        "effect": interval_text(cell.difference, metric(MAIN).digits) if cell and cell.difference else "",
        "where": f"{title(experiment)}, {len(row.records)} seeds" if experiment and row else "",
        "cost": f"{passes} pass{'es' * (passes > 1)}" + (f", {spent:.2f} times the CPU time" if spent else ""),
        "advice": _values(name),
        "unless": _unless(name),
        "runs": f"{runs} here" if runs else "not run here",
        "paper": (entry.paper or "").rpartition("/")[2],
        "anchor": (entry.paper or "").rpartition("/")[2].replace(".", ""),
    }


def _values(name: str) -> str:
    """Return the strength argument of a strategy with its default, and its page's advice on other values."""
    entry, strategy = registry.entry(name), registry.make(name)
    strongest = next((key for key, value in strategy.arguments.items() if isinstance(value, float)), None)
    if strongest is None:
        return ""
    _, _, advice = argument_texts(entry).get(strongest, "").partition("; ")
    is_whole = advice.count("(") == advice.count(")")  # otherwise the semicolon is inside brackets
    return f"{strongest} {strategy.arguments[strongest]:g}" + (
        f" ({advice.rstrip('.')})" if advice and is_whole else ""
    )


def _unless(name: str) -> str:
    """Return what a strategy's description says against using it."""
    said = [sentence for sentence in CAUTIONS.findall(" ".join(prose(registry.entry(name)).split()))]
    text = " ".join(
        sentence.removeprefix("Not ").removeprefix("Do not ")
        for sentence in said
        if sentence.startswith(("Not", "Do not"))
    )
    if not text and registry.make(name).objective.passes > 1:
        return "if compute is limited: as many steps of plain training cost a fraction."
    return text
