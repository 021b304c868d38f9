"""Makes the site's pages from the package and docs/results when it is built; docs/builder holds the parts."""

from pathlib import Path
from typing import Any

from builder import compare, entries, findings, formulas, snippets
from mkdocs.structure.files import File

from neft_zoo import registry
from neft_zoo.compare.loading import load


def on_config(config: Any) -> Any:
    """Read the results, and put a page per strategy into the navigation, under the table of all."""
    folder = Path(config["extra"].get("results") or Path(config["docs_dir"]) / "results")
    config["extra"]["experiments"], config["extra"]["notes"] = load(folder)
    pages = [{name: f"strategies/{name}.md"} for name in registry.builtin_names()]
    section = {"Strategies": [{"All": "strategies.md"}, *pages]}
    config["nav"] = [section if "Strategies" in item else item for item in config["nav"]]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to those in the folder."""
    extra = config["extra"]
    made = {"strategies.md": entries.overview(extra["experiments"])}
    made |= {f"strategies/{name}.md": entries.page(name, extra["experiments"]) for name in registry.builtin_names()}
    made["compare.md"] = compare.page(extra["experiments"], extra["notes"])
    made["findings.md"] = findings.page(extra["experiments"])
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    if extra.get("results"):
        root = Path(extra["results"])
        for path in sorted(root.rglob("*.json")):
            where = (Path("results") / path.relative_to(root)).as_posix()
            files.append(File.generated(config, where, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Put in what a page asks for, and its formulas."""
    return formulas.render(snippets.fill(markdown, config["extra"]["experiments"]))
