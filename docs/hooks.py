"""mkdocs hooks that generate the site's pages from the package and docs/results, using docs/builder."""

from importlib.metadata import metadata
from pathlib import Path
from typing import Any

from builder import compare, data, entries, findings, formulas, gallery, overview, papers, snippets, social
from builder.cards import CardTables
from mkdocs.structure.files import File

from neft_zoo import registry
from neft_zoo.compare.loading import load
from neft_zoo.config import recipe


def on_config(config: Any) -> Any:
    """Read the results, and add the strategies' pages to the navigation, below the page of all."""
    extra = config["extra"]
    folder = Path(extra.get("results") or Path(config["docs_dir"]) / "results")
    extra["experiments"], extra["notes"] = load(folder)
    # A test may request the pages of a few strategies and recipes only.
    extra["entries"] = extra.get("entries") or registry.builtin_names()
    extra["recipes"] = extra.get("recipes") or recipe.names()
    config["markdown_extensions"].append(CardTables())
    _take_addresses(config)
    return config


def _take_addresses(config: Any) -> None:
    """Set the URLs of the site, the repository and a page's source, if the package's metadata has them."""
    urls = dict(each.split(", ", 1) for each in metadata("neft-zoo").get_all("Project-URL") or [])
    if address := urls.get("Documentation"):
        config["site_url"] = f"{address.rstrip('/')}/"
    if address := urls.get("Repository"):
        config["repo_url"], config["repo_name"] = address, config["site_name"]
        config["edit_uri"] = "edit/main/docs/"
        config["theme"]["features"].append("content.action.edit")


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages and files to those in the folder."""
    extra, experiments = config["extra"], config["extra"]["experiments"]
    made = {"strategies.md": overview.page(experiments), "findings.md": findings.page(experiments)}
    made |= {f"strategies/{name}.md": entries.page(name, experiments) for name in extra["entries"]}
    made |= {"recipes.md": gallery.overview(), "papers.md": papers.page(experiments)}
    made |= {f"recipes/{name}.md": gallery.page(name, experiments) for name in extra["recipes"]}
    made["compare.md"] = compare.page(experiments, extra["notes"])
    made |= data.files(experiments)
    for path, content in {**made, "assets/social.png": social.card()}.items():
        files.append(File.generated(config, path, content=content))
    if extra.get("results"):
        root = Path(extra["results"])
        for path in sorted(root.rglob("*.json")):
            where = (Path("results") / path.relative_to(root)).as_posix()
            files.append(File.generated(config, where, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Insert the snippets that a page requests, and render its formulas."""
    if page.parent is not None and page.parent.title == "Developers":
        page.meta.setdefault("search", {"boost": 0.3})  # written guides come first in search
    up = "../" * page.file.src_uri.count("/")
    return formulas.render(snippets.fill(markdown, config["extra"]["experiments"], up))
