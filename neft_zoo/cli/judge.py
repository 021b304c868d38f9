"""`neft-zoo judge`: win rates of one model's outputs over another's."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neft_zoo.cli.parser import Commands, add_command
from neft_zoo.console import printable, say_written_over
from neft_zoo.errors import NoiseError
from neft_zoo.files import check_folder, check_output, locked, make_folder, write_json
from neft_zoo.noise.schedules import check_count, check_number

if TYPE_CHECKING:
    from neft_zoo.judging.json_files import Outputs
    from neft_zoo.judging.length_control import Published
    from neft_zoo.judging.pairs import Judgement
    from neft_zoo.judging.winrate import JudgedBy

REPORT = "judged.json"
ANNOTATIONS = "annotations.json"
EXAMPLE = """
neft-zoo judge runs/noise runs/plain --model gpt-4o
neft-zoo judge runs/noise runs/plain --human rate.html
neft-zoo judge --annotations annotations.json
"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    summary = "win rates of one model over another, plain and length-controlled"
    command = add_command(commands, "judge", run, summary, EXAMPLE)
    command.add_argument("ours", type=Path, nargs="?", metavar="OURS", help="model_outputs.json, or its folder")
    command.add_argument("theirs", type=Path, nargs="?", metavar="THEIRS", help="the same for the other model")
    group = command.add_argument_group("Judge")
    group.add_argument("--judge", default="endpoint", help="endpoint, MODULE:NAME, or a rating page's export.json")
    group.add_argument("--human", type=Path, metavar="PAGE", help="write a page for blind ratings instead")
    group.add_argument("--annotations", type=Path, metavar="FILE", help="read AlpacaEval's annotations instead")
    group = command.add_argument_group("Endpoint")
    group.add_argument("--model", help="of the endpoint")
    group.add_argument("--base_url", metavar="URL", help="such as http://localhost:8000/v1 (OpenAI's)")
    group.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds per reply (%(default)s)")
    group.add_argument("--retries", type=int, default=4, metavar="INT", help="after a failed attempt (%(default)s)")
    group.add_argument("--workers", type=int, default=8, metavar="INT", help="parallel questions (%(default)s)")
    group.add_argument("--temperature", type=_number, default=0.0, metavar="FLOAT", help="or none (%(default)s)")
    group.add_argument(
        "--max_tokens", type=_count, default=16, metavar="INT", help="maximum length of a reply, or none (%(default)s)"
    )
    group = command.add_argument_group("Pairs and output")
    group.add_argument("--gamed", type=Path, metavar="FILE", help="AlpacaEval's df_gamed.csv: difficulties")
    group.add_argument("--limit", type=int, metavar="INT", help="instructions to judge, drawn by the seed (all)")
    group.add_argument("--seed", type=int, default=0, metavar="INT", help="of the page's order and the limit's draw")
    group.add_argument("--output", type=Path, help=f"folder for {REPORT}, {ANNOTATIONS} and the cache (OURS/judged)")


def _number(text: str) -> float | None:
    return None if text == "none" else float(text)


def _count(text: str) -> int | None:
    return None if text == "none" else int(text)


def run(options: argparse.Namespace) -> None:
    """Judge pairs or read existing judgements, write report and annotations, and print the table."""
    _check(options)
    from neft_zoo.judging.length_control import read_published
    from neft_zoo.judging.pairs import match, sample
    from neft_zoo.judging.winrate import JudgedBy

    if options.annotations is not None:
        return _summarize_file(options)
    from neft_zoo.judging.json_files import read_outputs

    ours, theirs = read_outputs(options.ours), read_outputs(options.theirs)
    pairs = sample(match(ours, theirs), options.limit, options.seed)
    if options.human is not None:
        check_output("human", options.human)
        say_written_over(options.human)
        from neft_zoo.judging.rating_page import write_page

        print(write_page(pairs, options.human, options.seed))
        return None
    published = None if options.gamed is None else read_published(options.gamed)
    if published is not None:
        _check_positions(ours, theirs, len(pairs), published)
    near = options.ours if options.ours.is_dir() else options.ours.parent
    folder = options.output or near / "judged"
    check_folder("output", folder)
    with locked("output", folder):
        say_written_over(folder / REPORT, folder / ANNOTATIONS)
        judgements, name, reasons = _ask(options, pairs, folder)
        _finish(judgements, JudgedBy(ours.generator, theirs.generator, name, reasons), published, folder)
    return None


def _check(options: argparse.Namespace) -> None:
    if (options.annotations is None) == (options.theirs is None):
        raise NoiseError("either OURS and THEIRS or --annotations must be given.")
    check_count("retries", options.retries, 0)
    check_count("workers", options.workers, 1)
    check_number("timeout", options.timeout, 1e-3)
    if options.temperature is not None:
        check_number("temperature", options.temperature)
    if options.max_tokens is not None:
        check_count("max_tokens", options.max_tokens, 1)
    if options.limit is not None:
        check_count("limit", options.limit, 1)


def _check_positions(ours: Outputs, theirs: Outputs, pairs: int, published: Published) -> None:
    """Raise, before a judge is asked, if positions do not tell which difficulty an instruction has."""
    from neft_zoo.judging.length_control import check_count as check_instructions

    if pairs < len(ours.answers):
        raise NoiseError(f"with --gamed every instruction must be judged, but --limit draws {pairs} of them.")
    if list(ours.answers) != list(theirs.answers):
        raise NoiseError(
            "with --gamed both must answer the instructions in AlpacaEval's order, but their orders differ."
        )
    check_instructions(pairs, published)


def _summarize_file(options: argparse.Namespace) -> None:
    from neft_zoo.judging.length_control import read_published
    from neft_zoo.judging.winrate import read_annotations

    if options.output is not None:
        check_folder("output", options.output)
        say_written_over(options.output / REPORT, options.output / ANNOTATIONS)
    judgements, judged_by = read_annotations(options.annotations)
    published = None if options.gamed is None else read_published(options.gamed)
    _finish(judgements, judged_by, published, options.output)


def _ask(options: argparse.Namespace, pairs: Any, folder: Path) -> tuple[Any, str, dict[str, int]]:
    """Return judgements, the judge's name and the reasons for missing verdicts."""
    from neft_zoo.judging.cache import Cache
    from neft_zoo.judging.judges import judge_pairs, load_judge

    if options.judge.endswith(".json"):
        from neft_zoo.judging.rating_page import read_ratings

        return read_ratings(Path(options.judge), pairs), "human", {}
    if options.judge == "endpoint":
        from neft_zoo.judging.endpoint import Endpoint

        if not options.model:
            raise NoiseError("model must be given for an endpoint as the judge.")
        chosen = {key: getattr(options, key) for key in ("timeout", "retries", "workers", "temperature", "max_tokens")}
        # The client would read this variable by itself, but the cache and messages need the address too.
        address = options.base_url or os.environ.get("OPENAI_BASE_URL") or None
        found: Any = Endpoint(options.model, address, **chosen)
        name = options.model
    elif ":" in options.judge:
        found, name = load_judge(options.judge, options.retries), options.judge
    else:
        raise NoiseError(f"judge must be endpoint, MODULE:NAME or a file that ends in .json, got {options.judge!r}.")
    judgements, reasons = judge_pairs(found, pairs, Cache(folder / "verdicts.jsonl"))
    return judgements, name, reasons


def _finish(
    judgements: Sequence[Judgement], judged_by: JudgedBy, published: Published | None, folder: Path | None
) -> None:
    """Print the report, and write it and the annotations if there is a folder."""
    from neft_zoo.judging.pairs import annotation
    from neft_zoo.judging.winrate import JudgeReport, summarize, table

    report = JudgeReport(**vars(summarize(judgements, published)), **vars(judged_by))
    width = max(len(label) for label, _ in table(report))
    for label, text in table(report):
        print(printable(f"{label:<{width}}  {text}"))
    if folder is not None:
        names = (judged_by.ours, judged_by.theirs, judged_by.judge)
        make_folder(folder)
        annotations = [annotation(each, *names).to_dict() for each in judgements]
        write_json(folder / ANNOTATIONS, annotations, indent=1, is_data=True)
        write_json(folder / REPORT, report.to_dict(), indent=1)
        print(folder / REPORT)
