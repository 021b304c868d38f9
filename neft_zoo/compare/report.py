"""The report of a comparison as Markdown, CSV or a single HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from neft_zoo.compare.results import read_folder
from neft_zoo.compare.summary import summarize
from neft_zoo.compare.tables import markdown, table
from neft_zoo.errors import require
from neft_zoo.files import check_output, write_text


def write_report(folder: Path, form: Literal["md", "csv", "html"], output: Path | None) -> str | None:
    """Write a report to a file, or return its text if no output is given; HTML is then written into the folder.

    Args:
        folder: with results of one recipe.
        form: of the report.
        output: a file in an existing folder, or None for standard output.

    Raises:
        NoiseError: if the results cannot be read or compared, or the output cannot be written.
    """
    if output is not None:
        check_output("output", output)
    experiment = summarize(read_folder(folder))
    if form == "html":
        for package in ("matplotlib", "jinja2"):
            require(package, "an HTML report", "compare")
        from neft_zoo.compare.html import html

        text, output = html(experiment), output or folder / "report.html"
    else:
        text = markdown(experiment) if form == "md" else table(experiment)
    if output is None:
        return text
    write_text(output, text)
    return None
