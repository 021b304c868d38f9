"""The strategies' pages: docstring, signature, pictures and results of every entry of the registry."""

from __future__ import annotations

import ast
import inspect
import re

import yaml
from markupsafe import escape

from neft_zoo import registry
from neft_zoo.compare.experiment import POINTS, STEPS, Column, Experiment, Row
from neft_zoo.compare.metrics import metric
from neft_zoo.compare.records import When
from neft_zoo.compare.verdicts import Verdict
from neft_zoo.config import recipe
from neft_zoo.registry.citations import bibtex
from neft_zoo.registry.docstrings import argument_texts, prose, spell

from .pictures import made_from, pictures
from .results import against_plain, results_table
from .tables import could_have_been_seen, difference_text, table
from .wants import leading
from .words import row_name, setting, title

SHOWN: tuple[Column, ...] = (("test_loss", "end"), ("test_loss", "best"), ("gap", "end"), ("train_rouge_l", "end"))
# What a method is for beside the loss; shown in the place of as many others.
PURPOSES: dict[str, tuple[Column, ...]] = {
    "quant_noise": (("rtn4_change", "end"), ("rtn3_change", "end")),
    "mixout": (("general_text_loss", "end"),),
}
LINKS = {"https://arxiv.org/abs/2310.05914": "[What is published about NEFTune, table by table](../paper.md)."}


def page(name: str, experiments: list[Experiment]) -> str:
    """Return the page of one strategy."""
    entry, strategy = registry.entry(name), registry.make(name)
    formula, where, text = split(prose(entry))
    parts = ["---\nhide: [navigation]\n---", f"# {name}", entry.summary, formula, where, "## The noise"]
    drawn = pictures(name)
    nothing = "Nothing is added to embeddings, layers, tokens or weights."
    parts += [drawn, made_from(name)] if drawn else [nothing if name == "none" else f"{nothing} Dropout is redrawn."]
    parts += ["## Use", *example(entry), "In a recipe, with every argument:"]
    parts += [code("yaml", yaml.safe_dump({"noise": strategy.to_dict()}, sort_keys=False))]
    if entry.parameters:
        parts += ["## Arguments", arguments(entry)]
    parts += ["## Cost", cost(name, experiments)]
    text = re.sub(r"\s*\b(For|Against): ", r"\n\n**\1:** ", text)
    parts += ["## Evidence", "### Published", text or "None.", *([LINKS[entry.paper]] if entry.paper in LINKS else [])]
    parts += ["### Measured here", measured(name, experiments), "## Results", results(name, experiments)]
    file = recipe.folder() / "strategies" / f"{name}.yaml"
    shipped = f"The shipped recipe `{name}`, for `neft-zoo sft --config {name}`:"
    parts += ["## Recipe", shipped, code("yaml", file.read_text(encoding="utf-8"))]
    paper = f"[{entry.paper}]({entry.paper})" if entry.paper else "No paper; this package's own entry."
    parts += ["## Cite", f"{paper} Entry version {entry.version}.", code("bibtex", bibtex(entry.paper))]
    return "\n\n".join(part for part in parts if part) + "\n"


def split(text: str) -> tuple[str, str, str]:
    """Return the formula in a docstring's prose, the sentence that continues it, and the rest."""
    match = re.search(r"\$\$.+?\$\$", text, re.DOTALL)
    if match is None:
        return "", "", text
    rest = (text[: match.start()] + text[match.end() :]).strip()
    if not rest[:1].islower():
        return match[0], "", rest
    sentence, stop, rest = rest.partition(". ")
    return match[0], sentence + stop.strip(), rest


def arguments(entry: registry.Entry) -> str:
    """Return the table of an entry's arguments: types and defaults from the signature, meaning from the docstring."""
    hints, texts, lines = entry.hints(), argument_texts(entry), []
    for name, parameter in entry.parameters.items():
        default = "required" if parameter.default is parameter.empty else f"`{parameter.default!r}`"
        lines.append(
            (f"`{name}`", escape_bar(spell(hints[name])), escape_bar(default), escape_bar(texts.get(name, "")))
        )
    return table(("argument", "type", "default", "meaning"), lines)


def example(entry: registry.Entry) -> list[str]:
    """Return the docstring's example as a code block, if there is one."""
    text = inspect.cleandoc(entry.build.__doc__ or "")
    match = re.search(r"^Example:\n\s+`(.+?)`\s*$", text, re.DOTALL | re.MULTILINE)
    if match is None:
        return []
    return [code("python", "from neft_zoo import SFTTrainer\n\n" + one_argument_a_line(" ".join(match[1].split())))]


def one_argument_a_line(call: str) -> str:
    """Return a Python call with one argument per line, so that it fits on a phone."""
    tree = ast.parse(call, mode="eval").body
    if not isinstance(tree, ast.Call):
        return call
    arguments = [*map(ast.unparse, tree.args), *(f"{each.arg}={ast.unparse(each.value)}" for each in tree.keywords)]
    inside = "".join(f"    {each},\n" for each in arguments).replace("'", '"')
    return f"{ast.unparse(tree.func)}(\n{inside})"


def cost(name: str, experiments: list[Experiment]) -> str:
    """Return the cost of a strategy: by construction, and as measured."""
    strategy = registry.make(name)
    passes = strategy.objective.passes
    plural = "" if passes == 1 else "es"
    lines = [f"{passes} forward and backward pass{plural} per batch at its default arguments; site: {strategy.site}."]
    for experiment in experiments:
        row = experiment.find(name)
        spent = cpu_ratio(row) if row and name != "none" and experiment.budget == STEPS else None
        if spent:
            lines.append(f"{title(experiment)}: {spent:.2f} times the CPU time of `none` to train.")
    return "\n".join(f"* {line}" for line in lines)


def cpu_ratio(row: Row) -> float | None:
    """Return the CPU time of training relative to the baseline at the same seeds, or None if it was not measured."""
    cell = row.cells.get(("cpu_s", "end"))
    return cell.mean / cell.baseline if cell and cell.mean and cell.baseline else None


def measured(name: str, experiments: list[Experiment]) -> str:
    """Return the results for and against a strategy, in sentences made by rule."""
    if name == "none":
        return "It is the baseline of all other strategies."
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
                said = _said([row.cells["test_loss", point].verdict for row in alike])
                speaks[side].append(f"{title(experiment)}, test loss {place}, {said}: {_listed(alike, point)}.")
        failed = [f"{row.failed} of {len(row.runs)} runs of `{row_name(row)}` failed" for row in rows if row.failed]
        speaks["Against"] += [f"{title(experiment)}: {each}." for each in failed]
    if not any(speaks.values()):
        return "Not run."
    lists = [f"**{side}**\n\n" + "\n".join(f"* {line}" for line in each) for side, each in speaks.items() if each]
    return "\n\n".join(lists)


def _said(verdicts: list[Verdict | None]) -> str:
    """Return verdicts of one kind in words."""
    first = next(filter(None, verdicts))
    return f"undecided{could_have_been_seen(verdicts, first.word)}" if first.word == "undecided" else first.text()


def _listed(rows: list[Row], point: When) -> str:
    """Return rows with their differences; if there are many, only their names, since the table below has the rest."""
    if len(rows) > 3:
        return ", ".join(f"`{row_name(row)}`" for row in rows)
    kind = metric("test_loss")
    return "; ".join(f"`{row_name(row)}` {difference_text(row.cells['test_loss', point], kind)}" for row in rows)


def results(name: str, experiments: list[Experiment]) -> str:
    """Return the tables of a strategy's rows, each with its chart and the baseline on top."""
    parts = []
    for experiment in experiments:
        rows = [row for row in experiment.rows if row.entry == name and row is not experiment.none]
        if not rows and (name != "none" or experiment is not leading(experiments)):
            continue
        purposes = PURPOSES.get(name, ())
        chosen = (*SHOWN[: len(SHOWN) - len(purposes)], *purposes)
        columns = [column for column in chosen if any(column in row.cells for row in rows or [experiment.none])]
        shown = results_table([experiment.none, *rows], columns, setting(experiment, rows or None), "../", costs=False)
        view = f"../compare.html#experiment={experiment.key}&rows=all&filter={name}"
        parts += [
            f"### {title(experiment)}",
            shown,
            against_plain(experiment, rows),
            f'<a href="{escape(view)}">All metrics and runs of these rows</a>',
        ]
    return "\n\n".join(filter(None, parts)) or "Not run."


def code(language: str, text: str) -> str:
    return f"```{language}\n{text.strip()}\n```"


def escape_bar(text: str) -> str:
    """Escape a bar, which would end a table cell."""
    return text.replace("|", r"\|")
