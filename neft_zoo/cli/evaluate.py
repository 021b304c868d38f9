"""`neft-zoo evaluate`: its options, read without torch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from neft_zoo.console import quiet
from neft_zoo.errors import NoiseError
from neft_zoo.evaluation.options import PARTS, Options
from neft_zoo.files import check_folder

if TYPE_CHECKING:
    from neft_zoo.evaluation.results import EvaluationReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to a parser."""
    plain = Options()
    parser.add_argument("model", help="folder of a model, a run or an adapter, or a name on the hub")
    parser.add_argument("--config", required=True, help="recipe it was trained with: data, splits, tokenization")
    parser.add_argument("--output", type=Path, help="folder for the report and the plots (MODEL/evaluation)")
    parser.add_argument("--parts", default=",".join(PARTS), help="what to measure (%(default)s)")
    parser.add_argument("--records", type=_count, default=plain.records, help="records a split, or all (%(default)s)")
    parser.add_argument("--answers", type=_count, default=plain.answers, help="answers a split, or all (%(default)s)")
    for name in ("max_new_tokens", "min_new_tokens", "repetition_penalty", "words", "noise", "seed"):
        default = getattr(plain, name)
        kind = int if default is None else type(default)
        parser.add_argument(f"--{name}", type=kind, default=default, help=HELP[name])
    parser.add_argument("--tasks", default="", help="tasks of lm-evaluation-harness, with commas between")
    parser.add_argument("--task_folder", type=Path, help="folder of further tasks")
    parser.add_argument("--no_plots", action="store_true", help="write the report only")
    parser.set_defaults(run=run)


def _count(text: str) -> int | None:
    return None if text == "all" else int(text)


HELP = {
    "max_new_tokens": "longest answer in tokens (%(default)s)",
    "min_new_tokens": "shortest answer where the end is blocked (%(default)s)",
    "repetition_penalty": "of the answers; the NEFTune paper's is 1.2 (%(default)s)",
    "words": "word count of repetition and diversity (50, or nothing where all answers are shorter)",
    "noise": "strategy of the noise curve (%(default)s)",
    "seed": "of replaced tokens and noise (%(default)s)",
}


def run(chosen: argparse.Namespace) -> None:
    """Evaluate, write report and plots, and print the table and their paths."""
    options = Options(
        parts=tuple(part for part in chosen.parts.split(",") if part),
        records=chosen.records,
        answers=chosen.answers,
        **{name: getattr(chosen, name) for name in HELP},
    )
    output = chosen.output or Path(chosen.model).expanduser() / "evaluation"
    if chosen.output is None and not Path(chosen.model).expanduser().is_dir():
        raise NoiseError(f"model must be an existing folder, or --output be given, got {chosen.model!r}.")
    check_folder("output", output)
    from neft_zoo.evaluation.plots import draw, require_matplotlib
    from neft_zoo.evaluation.report import save, show
    from neft_zoo.evaluation.run import evaluate

    if not chosen.no_plots:
        require_matplotlib()  # before anything is computed
    tasks = [task for task in chosen.tasks.split(",") if task]
    with quiet():
        report = evaluate(chosen.model, chosen.config, options=options, tasks=tasks, task_folder=chosen.task_folder)
    _check_words(report, chosen.words)
    show(report)
    print(*[save(report, output), *([] if chosen.no_plots else draw(report, output))], sep="\n")


def _check_words(report: EvaluationReport, words: int | None) -> None:
    """Raise if a word count was asked for that no answer reached: the table would miss what it was given for."""
    used = [split.diversity.used for split in (report.text or {}).values()]
    if words is not None and used and not any(used):
        raise NoiseError(f"words must be at most the words of the longest answer, got {words}: every one is shorter.")
