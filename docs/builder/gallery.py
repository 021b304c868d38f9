"""The gallery of recipes: each shipped one with its YAML, its requirements, and the number it should reproduce."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from neft_zoo.compare.experiment import Experiment
from neft_zoo.config import recipe

from .chooser_evidence import said
from .tables import table
from .words import setting, title

GROUPS = {
    "": ("To start from", "The base that the others extend, and the example that runs on any machine."),
    "paper": ("The NEFTune paper's runs", "Model, data, alpha and the win rate in the paper's tables."),
    "strategies": ("One strategy each", "The base recipe with one strategy: the shortest way to try it."),
    "controls": ("Controls", "Free alternatives without noise; rows of `neft-zoo compare --controls`."),
    "engines": ("Several devices", "DDP, FSDP2, ZeRO-3 and QLoRA over GPUs."),
    "integrations": ("Other frameworks", "The same noise in other frameworks."),
    "results": ("This site's experiments", "The runs behind the tables of this site, on a CPU."),
    "gpu": ("The same on a GPU", "The site's setting on a model of 600 M parameters."),
}
PARAMETERS = re.compile(r"(\d+(?:\.\d+)?)[bB]\b")
CARD = 80  # GB of a large GPU


@cache
def loaded(name: str) -> recipe.Recipe:
    """Return a recipe, cached."""
    return recipe.load(name)


def overview() -> str:
    """Return the page of all recipes."""
    parts = [
        "---\nhide: [toc]\n---\n\n# Recipes",
        "A recipe is a TRL config in YAML with a `noise:` block. `neft-zoo sft NAME` runs one, `neft-zoo recipes cp "
        "NAME my.yaml` copies one to edit, and any option can be given on the command line.",
    ]
    by_group: dict[str, list[str]] = {}
    for name in recipe.names():
        by_group.setdefault(name.rpartition("/")[0], []).append(name)
    for group, (words, text) in GROUPS.items():
        if not (inside := by_group.pop(group, [])):
            continue
        lines = [(f"[{name.rpartition('/')[2]}](recipes/{name}.md)", purpose(name), hardware(name)) for name in inside]
        parts += [f"## {words}", text, table(("recipe", "what it is", "runs on"), lines)]
    for group, inside in by_group.items():
        lines = [(f"[{name}](recipes/{name}.md)", purpose(name), hardware(name)) for name in inside]
        parts += [f"## {group}", table(("recipe", "what it is", "runs on"), lines)]
    return "\n\n".join(parts) + "\n"


def page(name: str, experiments: Sequence[Experiment]) -> str:
    """Return the page of one recipe."""
    up = "../" * (name.count("/") + 1)
    text = recipe.find(name).read_text(encoding="utf-8")
    base = _extends(text)
    parts = ["---\nhide: [navigation]\nsearch:\n  boost: 0.3\n---", f"# {name}", purpose(name)]
    extends = f"It extends [{base}]({up}recipes/{base}.md). " if base in recipe.names() else ""
    parts += [f"{extends}Runs on {hardware(name)}."]
    command = f"neft-zoo sft {name}\nneft-zoo recipes cp {name} my.yaml"
    if name.startswith("controls/"):
        command = f"neft-zoo compare RECIPE --controls {name.rpartition('/')[2]}"
    parts += [f"```\n{command}\n```"]
    parts += [f"```yaml\n{text.strip()}\n```", "## What to expect", expected(name, experiments, up)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _extends(text: str) -> str:
    found = re.search(r"^extends: (\S+)", text, re.MULTILINE)
    return found[1] if found else ""


def purpose(name: str) -> str:
    """Return the first sentence of a recipe's leading comment, or ""."""
    lines = []
    for line in recipe.find(name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") or line.strip() == "#":
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines).replace("|", r"\|").replace("->", "to")


def hardware(name: str) -> str:
    """Return a recipe's hardware requirements, from its model's size and what is trained."""
    values = loaded(name).values
    model = str(values.get("model_name_or_path"))
    found = PARAMETERS.search(Path(model).name)
    if name.startswith("integrations/"):
        return "what that framework needs"
    if found is None or recipe.PLACEHOLDER in model:
        return "any machine" if not name.startswith("engines/") else "two GPUs or more"
    billions = float(found[1])
    size = billions * (0.6 if values.get("load_in_4bit") else 2 if values.get("use_peft") else 16)
    cards = -(-size // (0.75 * CARD))
    return f"about {size:,.0f} GB for the model and its training, {cards:.0f} GPU{'s' * (cards > 1)} of {CARD} GB"


def expected(name: str, experiments: Sequence[Experiment], up: str) -> str:
    """Return the number that a recipe should reproduce, with its source."""
    group, _, stem = name.rpartition("/")
    if group == "paper":
        return f"The number in the first line is the paper's: see [its tables]({up}paper.md). It was not run here."
    if group in ("results", "gpu"):
        alike = [each for each in experiments if each.name == stem]
        lines = [f"{title(each)}: {setting(each)}. [Its rows]({up}compare.md)" for each in alike if group == "results"]
        return "\n\n".join(lines) or "Not run here."
    if group == "strategies":
        return f"[{stem}]({up}strategies/{stem}.md) has what was measured, for and against."
    if group == "controls":
        lines = [
            f"* {title(each)}: {said(row)}"
            for each in experiments
            for row in each.rows
            if row.runs[0][1].control == stem and row.cells
        ]
        return "\n".join(lines) or "Not run here."
    if group == "" and stem == "quickstart":
        return f"[Quickstart]({up}guides/quickstart.md) has the logs of a run."
    return f"It was run on small models: see the [support matrix]({up}support.md)." if group == "engines" else ""
