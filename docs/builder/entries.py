"""The strategies' pages: docstring, signature, pictures and results of every entry of the registry."""

from __future__ import annotations

import inspect
import re

import yaml

from neft_zoo import registry
from neft_zoo.compare.experiment import POINTS, STEPS, Experiment, Row
from neft_zoo.compare.metrics import metric
from neft_zoo.compare.records import When
from neft_zoo.config import recipe
from neft_zoo.registry.citations import bibtex
from neft_zoo.registry.docstrings import argument_texts, prose, spell

from .evidence import measured, results
from .pictures import made_from, pictures
from .tables import judged_text, table, typeset

LINKS = {"https://arxiv.org/abs/2310.05914": "[What is published about NEFTune, table by table](../paper.md)."}


def overview(experiments: list[Experiment]) -> str:
    """Return the page that lists all strategies."""
    lines = []
    largest = max(experiments, key=lambda each: len(each.rows), default=None)
    for name in registry.builtin_names():
        entry, strategy = registry.entry(name), registry.make(name)
        facts = (strategy.family, str(strategy.objective.passes), strategy.site)
        row = largest.find(name) if largest else None
        cells = [_brief(row, point) if row else "not run" for point in POINTS]
        lines.append((f"[{name}](strategies/{name}.md)", escape_bar(entry.summary), *facts, *cells))
    intro = (
        "Passes are forward passes per batch, and as many backward; one is the cost of plain fine-tuning. "
        "[Choosing](choosing.md) says which to try, [Compare](compare.md) has all rows and metrics."
    )
    if largest:
        intro += (
            f" The test loss is that of {largest.title}, at default arguments, less that of `none`, in nats per token "
            "with a 95 % interval."
        )
    heads = (
        "strategy",
        "what it does",
        "family",
        "passes",
        "site",
        *(f"test loss {each}" for each in POINTS.values()),
    )
    return f"---\nhide: [toc]\n---\n\n# Strategies\n\n{intro}\n\n{table(heads, lines)}\n"


def page(name: str, experiments: list[Experiment]) -> str:
    """Return the page of one strategy."""
    entry, strategy = registry.entry(name), registry.make(name)
    formula, where, text = split(prose(entry))
    parts = [f"# {name}", entry.summary, formula, where, "## The noise"]
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
    """Return the formula of a docstring's prose, the sentence that goes on from it, and the rest."""
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
    """Return the example of the docstring, if there is one, as a block of code."""
    text = inspect.cleandoc(entry.build.__doc__ or "")
    match = re.search(r"^Example:\n\s+`(.+?)`\s*$", text, re.DOTALL | re.MULTILINE)
    if match is None:
        return []
    return [code("python", "from neft_zoo import SFTTrainer\n\n" + re.sub(r"\n\s*", "\n    ", match[1]))]


def cost(name: str, experiments: list[Experiment]) -> str:
    """Return what a strategy costs: by construction, and as measured."""
    strategy = registry.make(name)
    passes = strategy.objective.passes
    plural = "" if passes == 1 else "es"
    lines = [f"{passes} forward and backward pass{plural} per batch at its default arguments; site: {strategy.site}."]
    for experiment in experiments:
        row = experiment.find(name)
        clock = next((key for key in ("cpu_s", "wall_s") if row and (key, "end") in row.cells), None)
        if row and name != "none" and clock and experiment.budget == STEPS:
            own, plain = (each.cells[clock, "end"].mean for each in (row, experiment.none))
            kind = "CPU time" if clock == "cpu_s" else "time"
            if own and plain:
                lines.append(f"{experiment.title}: {own / plain:.2f} times the {kind} of `none` to train.")
    return "\n".join(f"* {line}" for line in lines)


def _brief(row: Row, point: When) -> str:
    """Return the difference alone: means over different seeds cannot be compared."""
    cell = row.cells.get(("test_loss", point))
    if cell is None:
        return "-"
    if cell.difference is None:
        return f"<small>{typeset(cell.mean, 3)}</small>"
    return f"<small>{judged_text(cell, metric('test_loss'))}</small>"


def code(language: str, text: str) -> str:
    return f"```{language}\n{text.strip()}\n```"


def escape_bar(text: str) -> str:
    """Keep a bar from ending a table's cell."""
    return text.replace("|", r"\|")
