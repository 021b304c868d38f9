"""Makes the strategies' pages when the site is built, from the registry: nothing to keep in step by hand."""

import inspect
import re
from typing import Any

import yaml
from mkdocs.structure.files import File

from neft_zoo import recipe, registry
from neft_zoo.citations import bibtex
from neft_zoo.pages import argument_texts, prose, spell


def on_config(config: Any) -> Any:
    """Put a page per strategy into the navigation, under the table of all."""
    pages = [{name: f"strategies/{name}.md"} for name in registry.builtin_names()]
    section = {"Strategies": [{"All": "strategies.md"}, *pages]}
    config["nav"] = [section if "Strategies" in item else item for item in config["nav"]]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to those in the folder."""
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def pages() -> dict[str, str]:
    """Return path and Markdown of every generated page."""
    names = registry.builtin_names()
    return {"strategies.md": table(names), **{f"strategies/{name}.md": page(name) for name in names}}


def table(names: list[str]) -> str:
    """Return the page that lists all strategies."""
    lines = ["| strategy | family | passes | site | what it does |", "| --- | --- | --- | --- | --- |"]
    for name in names:
        entry, strategy = registry.entry(name), registry.make(name)
        facts = (strategy.family, strategy.objective.passes, strategy.site, cell(entry.summary))
        lines.append(f"| [{name}](strategies/{name}.md) | " + " | ".join(map(str, facts)) + " |")
    told = "Passes are forward passes per batch, and as many backward; one is the cost of plain fine-tuning."
    return "\n".join(["# Strategies", "", told, "", *lines, ""])


def page(name: str) -> str:
    """Return the page of one strategy."""
    entry, strategy = registry.entry(name), registry.make(name)
    paper = f"[{entry.paper}]({entry.paper})" if entry.paper else "none"
    facts = {"Family": strategy.family, "Passes": strategy.objective.passes, "Site": strategy.site}
    facts |= {"Paper": paper, "Version": entry.version}
    parts = [f"# {name}", entry.summary, formulas(prose(entry))]
    parts += ["| | |\n| --- | --- |\n" + "\n".join(f"| {key} | {value} |" for key, value in facts.items())]
    if entry.parameters:
        parts += ["## Arguments", arguments(entry)]
    parts += ["## Use", *example(entry)]
    block = yaml.safe_dump({"noise": strategy.to_dict()}, sort_keys=False)
    parts += ["In a recipe, with every argument:", code("yaml", block)]
    file = recipe.folder() / "strategies" / f"{name}.yaml"
    parts += [f"The shipped recipe `{name}`:", code("yaml", file.read_text(encoding="utf-8"))]
    return "\n\n".join([*parts, "## Cite", code("bibtex", bibtex(entry.paper))]) + "\n"


def arguments(entry: registry.Entry) -> str:
    """Return the table of an entry's arguments: types and defaults from the signature, meaning from the docstring."""
    hints, texts = entry.hints(), argument_texts(entry)
    lines = ["| argument | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, parameter in entry.parameters.items():
        default = "required" if parameter.default is parameter.empty else f"`{parameter.default!r}`"
        lines.append(f"| `{name}` | {cell(spell(hints[name]))} | {cell(default)} | {cell(texts.get(name, ''))} |")
    return "\n".join(lines)


def example(entry: registry.Entry) -> list[str]:
    """Return the example of the docstring, if there is one, as a block of code."""
    text = inspect.cleandoc(entry.build.__doc__ or "")
    found = re.search(r"^Example:\n\s+`(.+?)`\s*$", text, re.DOTALL | re.MULTILINE)
    return [code("python", re.sub(r"\n\s*", "\n    ", found[1]))] if found else []


def formulas(text: str) -> str:
    """Show displayed formulas as TeX: a renderer would have to be loaded from elsewhere."""
    return re.sub(r"\$\$(.+?)\$\$", lambda found: code("tex", found[1]), text, flags=re.DOTALL)


def code(language: str, text: str) -> str:
    return f"```{language}\n{text.strip()}\n```"


def cell(text: str) -> str:
    """Keep a bar from ending a table's cell."""
    return text.replace("|", r"\|")
