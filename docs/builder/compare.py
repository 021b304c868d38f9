"""The page of all results: tables that stand by themselves, and what assets/compare.js needs to draw and sort them."""

from __future__ import annotations

import html
from typing import Any

from neft_zoo.compare.statistics import MANY
from neft_zoo.config.recipe import PLACEHOLDER

from .figures import forest
from .metrics import metric
from .outcomes import POINTS, Experiment, Row
from .tables import difference_text, number, run_links

FAMILIES = ("single pass", "consistency", "adversarial", "weights", "control")
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
row less `none`, paired by seed (Student's t below {MANY} seeds, bootstrap from there). Rows differ in how many seeds
they have, and seeds differ: compare differences, not means. Losses are in nats per graded
token with the noise off. *At the best point* is each run's own evaluation with the lowest test loss, chosen by that
loss in every row alike; all other metrics are taken at the end. With one evaluation an epoch that point is coarse, and
differences there of a hundredth may be due to where evaluations lie. The gap is test loss less train loss: what was
learned by heart. *Compute* is tokens times passes over those of `none`. At *equal steps* every row sees the data
equally often; at *equal compute* a row of k passes trains for 1/k of the steps, which where training overfits is a
regularizer by itself: there, look at the best point. **Bold**: better than `none`;
*italics*: worse, both by p values corrected by Holm's method over the rows and both points of that metric. No mark
means that no difference was shown, not that there is none. [How runs are compared](comparison.md).
"""
NOT_RUN = "Not run: `docs/results` holds no finished comparison. `neft-zoo compare` makes one.\n"


def page(experiments: list[Experiment], notes: list[str]) -> str:
    """Return the page in Markdown, its tables in HTML."""
    head = "---\nhide: [navigation, toc]\nsearch:\n  exclude: true\n---\n\n# Compare\n"
    told = [f"* {note}" for note in notes]
    if not experiments:
        return "\n".join([head, NOT_RUN, *told]) + "\n"
    runs = sum(len(row.runs) for each in experiments for row in each.rows)
    plural = "" if len(experiments) == 1 else "s"
    intro = (
        f"Every run in this repository: {runs} in {len(experiments)} experiment{plural}, made by "
        "`sh recipes/results/run.sh`. Names lead to the strategies, seeds to the record of a run with its options, "
        "versions, commit and history. [What the paper found](findings.md) is checked on a page of its own. "
        "`lat` ran at `layers=[2]`: its default is the fifth layer, and the model has four."
    )
    sections = "\n\n".join(section(each) for each in experiments)
    return "\n\n".join([head, intro, controls(experiments), sections, EXPLAINED, *told]) + "\n"


def controls(experiments: list[Experiment]) -> str:
    """Return what the script shows and fills; without it, it stays hidden."""
    options = "".join(f'<option value="{each.key}">{html.escape(each.title)}</option>' for each in experiments)
    present = {row.family for each in experiments for row in each.rows}
    boxes = "".join(
        f'<label><input type="checkbox" name="family" value="{name}" checked> {name}</label>'
        for name in FAMILIES
        if name in present
    )
    return (
        '<div id="compare-controls" class="neft-controls" hidden>'
        f'<label>Experiment <select id="compare-experiment">{options}</select></label>'
        '<label>Filter rows <input id="compare-filter" type="search" placeholder="name or argument"></label>'
        '<label>Metric <select id="compare-metric"></select></label>'
        '<label>against <select id="compare-against"></select></label>'
        f"<fieldset><legend>Kind</legend>{boxes}</fieldset>"
        '<details><summary>Columns</summary><fieldset id="compare-columns"><legend>Shown columns</legend></fieldset>'
        "</details></div>"
        '<div id="compare-charts" class="plots" hidden><figure class="plot" id="compare-forest"></figure>'
        '<figure class="plot" id="compare-scatter"></figure></div>'
        '<p id="compare-count" role="status" hidden></p>'
    )


def section(experiment: Experiment) -> str:
    """Return an experiment: setting, a figure that needs no script, and its table."""
    setting = ", ".join(
        f"{name} {_told(experiment.config[key])}" for key, name in OPTIONS if experiment.config.get(key) is not None
    )
    records = [record for row in experiment.rows for _, record in row.runs]
    devices = ", ".join(sorted({str(record.get("device")) for record in records}))
    commits = ", ".join(sorted({str(record["commit"])[:7] for record in records if record.get("commit")}))
    setting += f"; made at commit {commits}" if commits else ""
    still = forest(experiment, "test_loss", "end") + forest(experiment, "test_loss", "best")
    title = html.escape(experiment.title)
    return (
        f'<section class="experiment" id="{experiment.key}" data-title="{title}">\n<h2>{title}</h2>\n'
        f"<p>{experiment.seeds} seeds, on {html.escape(devices)}; {html.escape(setting)}.</p>\n"
        f'<div class="still plots">{still}</div>\n{grid(experiment)}\n</section>'
    )


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value).removeprefix(f"{PLACEHOLDER}/")


def grid(experiment: Experiment) -> str:
    """Return the table: a row per strategy or control, a column per metric."""
    columns = experiment.metrics
    heads = "".join(_head(name, point) for name, point in columns)
    body = "\n".join(_line(experiment, row, columns) for row in experiment.rows)
    title = html.escape(experiment.title)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Results: {title}"><table class="results">'
        f"<caption>{title}: mean, and difference to none with its 95 % interval</caption>"
        f'<thead><tr><th scope="col" data-key="row">row</th>{heads}'
        '<th scope="col" data-key="passes">passes</th><th scope="col" data-key="compute">compute</th>'
        f'<th scope="col" data-key="runs">runs</th></tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'
    )


def _head(name: str, point: str) -> str:
    kind = metric(name)
    place = f" {POINTS[point]}" if point == "best" or name == "test_loss" else ""
    arrow = {"lower": " ↓", "higher": " ↑", None: ""}[kind.better]
    unit = f"<small>{kind.unit}</small>" if kind.unit else ""
    told = f'data-label="{kind.label}{place}" data-unit="{kind.unit}"'
    told += f' data-better="{kind.better or ""}" data-digits="{kind.digits}"'
    more = "" if kind.first else " data-more"
    return f'<th scope="col" data-key="{name}.{point}" {told}{more}>{kind.label}{place}{arrow} {unit}</th>'


def _line(experiment: Experiment, row: Row, columns: list[tuple[str, str]]) -> str:
    name = html.escape(row.label)
    link = f'<a href="strategies/{row.entry}.html">{name}</a>' if row.entry else f"{name} <small>(control)</small>"
    failed = f"<small>{row.failed} of {len(row.runs)} runs failed</small>" if row.failed else ""
    cells = "".join(_cell(row, pair) for pair in columns)
    rest = f'<td data-value="{row.passes}">{row.passes}</td>'
    compute = "" if row.compute is None else f' data-value="{row.compute:.6g}" data-diff="{row.compute:.6g}"'
    rest += f"<td{compute}>{number(row.compute, 2)}</td>"
    rest += f'<td class="runs" data-value="{len(row.runs)}">{run_links(row, "")}</td>'
    baseline = " data-baseline" if row is experiment.rows[0] else ""
    return f'<tr data-family="{row.family}"{baseline}><th scope="row">{link}{failed}</th>{cells}{rest}</tr>'


def _cell(row: Row, pair: tuple[str, str]) -> str:
    found, kind = row.cells.get(pair), metric(pair[0])
    if found is None:
        return "<td>-</td>"
    data, mark = f'data-value="{found.mean:.5g}"', ""
    told = number(found.mean, kind.digits)
    if found.difference is None or found.difference.mean is None:
        return f'<td {data} data-diff="0">{told}</td>' if found.difference is None else f"<td {data}>{told}</td>"
    each = found.difference
    data += f' data-diff="{each.mean:.4g}"'
    if each.low is not None and each.high is not None:
        data += f' data-low="{each.low:.4g}" data-high="{each.high:.4g}"'
    if found.verdict.endswith("better"):
        mark = "strong"
    elif found.verdict.endswith("worse"):
        mark = "em"
    title = html.escape(f"{found.seeds} seeds; {found.verdict.replace(':', ',')}")
    below = difference_text(found, kind)
    told = f"<{mark}>{told}</{mark}>" if mark else told
    return f'<td {data} title="{title}">{told}<small>{below}</small></td>'
