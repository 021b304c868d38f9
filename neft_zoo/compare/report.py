"""The report of a comparison: Markdown, CSV, or one HTML file."""

from __future__ import annotations

from pathlib import Path

from neft_zoo.compare.results import read_folder
from neft_zoo.compare.summary import summarize
from neft_zoo.compare.tables import markdown, table
from neft_zoo.errors import NoiseError


def write_report(folder: Path, form: str, output: Path | None) -> str | None:
    """Write a report, or return its text where no output is named; HTML goes into the folder then.

    Args:
        folder: of results of one recipe.
        form: md, csv or html.
        output: a file in an existing folder, None for standard output.

    Raises:
        NoiseError: if the results cannot be read or compared, or the output's folder does not exist.
    """
    summary = summarize(read_folder(folder))
    if form == "html":
        from neft_zoo.compare.html import html

        text, output = html(summary), output or folder / "report.html"
    else:
        text = markdown(summary) if form == "md" else table(summary)
    if output is None:
        return text
    if not output.parent.is_dir():
        raise NoiseError(f"output must be in an existing folder, got {output}.")
    partial = output.with_name(f"{output.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(output)
    return None
