"""The report as a single HTML file with tables and plots, without external resources."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from neft_zoo.compare.experiment import Column, Experiment
from neft_zoo.compare.plots import curves, forest
from neft_zoo.compare.reference import find_reference
from neft_zoo.compare.samples import samples
from neft_zoo.compare.tables import (
    COLUMNS,
    EXPLAINED,
    REFERENCE,
    REFERENCE_COLUMNS,
    cells,
    heading,
    reference_rows,
    reference_sentence,
)

TEMPLATES = Path(__file__).parent / "templates"


def environment(folder: Path) -> Environment:
    """Return the environment of the HTML templates in a folder, which escapes every value that is not markup."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def html(experiment: Experiment) -> str:
    """Return the report as a page."""
    sections = [
        {
            "id": anchor(column),
            "heading": heading(column),
            "rows": [cells(row, column) for row in experiment.rows],
            "forest": forest(experiment, column),
        }
        for column in experiment.columns
    ]
    reference = find_reference(experiment)
    shown = reference and {
        "heading": REFERENCE,
        "sentence": reference_sentence(reference),
        "columns": REFERENCE_COLUMNS,
        "rows": reference_rows(reference),
    }
    template = environment(TEMPLATES).get_template("report.html.j2")
    return template.render(
        title=f"{experiment.name}: strategies against none",
        samples=samples(experiment),
        curves=curves(experiment),
        sections=sections,
        columns=COLUMNS,
        reference=shown,
        explained=re.sub("[*`]", "", EXPLAINED),
        notes=experiment.notes,
    )


def anchor(column: Column) -> str:
    """Return the id of a metric's heading, without spaces."""
    return re.sub(r"[^\w.-]+", "-", "-".join(column))
