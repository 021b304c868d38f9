"""`neft-zoo doctor`."""

from __future__ import annotations

import argparse
from pathlib import Path

from neft_zoo.console import quiet
from neft_zoo.doctor.examine import examine
from neft_zoo.doctor.report import show
from neft_zoo.errors import NoiseError
from neft_zoo.files import write_json


def run(argv: list[str]) -> None:
    """Examine a recipe, print what was found, and write it where `--json` says."""
    parser = argparse.ArgumentParser(prog="neft-zoo doctor", add_help=False, allow_abbrev=False)
    parser.add_argument("--real_model", action="store_true")
    parser.add_argument("--json", type=Path)
    argv = ["--config", *argv] if argv and not argv[0].startswith("-") else argv
    options, rest = parser.parse_known_args(argv)
    if options.json is not None and (options.json.is_dir() or not options.json.absolute().parent.is_dir()):
        raise NoiseError(f"json must be a file in an existing folder, got {options.json}.")
    with quiet():
        report = examine(rest, options.real_model)
    show(report)
    if options.json is not None:
        write_json(options.json, report.to_dict())
