"""`neft-zoo evaluate`: measure a model with the noise off."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from neft_zoo.cli.parser import Commands, add_command
from neft_zoo.console import quiet, say, say_written_over
from neft_zoo.errors import NoiseError
from neft_zoo.evaluation.options import PARTS, SIDE_EFFECTS, Options
from neft_zoo.files import check_folder, locked

if TYPE_CHECKING:
    from neft_zoo.evaluation.results import EvaluationReport

EXAMPLE = """
neft-zoo evaluate runs/quickstart --config quickstart
neft-zoo evaluate runs/quickstart --config quickstart --parts losses
"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    plain = Options()
    summary = "measure a model with the noise off: losses, answers, robustness"
    command = add_command(commands, "evaluate", run, summary, EXAMPLE)
    command.add_argument("model", metavar="MODEL", help="folder of a model, run or adapter, or a hub name")
    command.add_argument("--config", required=True, metavar="RECIPE", help="data, splits and tokenization")
    group = command.add_argument_group("What is measured")
    group.add_argument(
        "--parts", default=",".join(PARTS), help=f"comma-separated (%(default)s); also {','.join(SIDE_EFFECTS)}"
    )
    group.add_argument(
        "--records", type=_count, default=plain.records, metavar="INT", help="records per split, or all (%(default)s)"
    )
    group.add_argument(
        "--answers", type=_count, default=plain.answers, metavar="INT", help="answers per split, or all (%(default)s)"
    )
    group.add_argument("--tasks", default="", help="lm-evaluation-harness tasks, comma-separated; ifeval is shipped")
    group.add_argument("--task_folder", type=Path, metavar="FOLDER", help="of further tasks")
    group = command.add_argument_group("Side effects")
    group.add_argument("--before", metavar="MODEL", help="the model before fine-tuning (where the recipe starts)")
    for name, text in SIDE_EFFECT_HELP.items():
        default = getattr(plain, name)
        group.add_argument(f"--{name}", type=_count, default=default, metavar="INT", help=text)
    group = command.add_argument_group("Constants")
    for name, text in HELP.items():
        default = getattr(plain, name)
        kind = int if default is None else type(default)
        group.add_argument(f"--{name}", type=kind, default=default, metavar=METAVARS[kind], help=text)
    group = command.add_argument_group("Output")
    group.add_argument("--output", type=Path, help="folder for the report and the plots (MODEL/evaluation)")
    group.add_argument("--no_plots", action="store_true", help="write the report only")


def _count(text: str) -> int | None:
    try:
        return None if text == "all" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number or all, got {text!r}") from None


METAVARS = {int: "INT", float: "FLOAT", str: "NAME"}
HELP = {
    "max_new_tokens": "maximum length of an answer, in tokens (%(default)s)",
    "min_new_tokens": "minimum length of an answer with the end blocked, in tokens (%(default)s)",
    "repetition_penalty": "of the answers; the NEFTune paper's is 1.2 (%(default)s)",
    "words": "words that repetition and diversity are measured on (50, if any answer is as long)",
    "noise": "strategy of the noise curve (%(default)s)",
    "seed": "of replaced tokens, noise and changed prompts (%(default)s)",
    "instruction_tokens": "maximum length of an answer to an IFEval prompt (%(default)s)",
}
SIDE_EFFECT_HELP = {
    "unrelated_records": "passages, and GSM8K problems, for forgetting, or all (%(default)s)",
    "safety_prompts": "XSTest prompts, or all (all)",
    "instruction_prompts": "IFEval prompts, or all (%(default)s)",
}


def run(chosen: argparse.Namespace) -> None:
    """Evaluate, write report and plots, and print the table and the paths."""
    options = Options(
        parts=tuple(part for part in chosen.parts.split(",") if part),
        records=chosen.records,
        answers=chosen.answers,
        **{name: getattr(chosen, name) for name in (*HELP, *SIDE_EFFECT_HELP)},
    )
    output = chosen.output or Path(chosen.model).expanduser() / "evaluation"
    if chosen.output is None and not Path(chosen.model).expanduser().is_dir():
        raise NoiseError(f"model must be an existing folder, or --output be given, got {chosen.model!r}.")
    check_folder("output", output)
    from neft_zoo.evaluation.plots import draw
    from neft_zoo.evaluation.report import FILE, save, show
    from neft_zoo.evaluation.run import evaluate

    tasks = [task for task in chosen.tasks.split(",") if task]
    with locked("output", output):
        say_written_over(output / FILE)
        say("loading data and model")
        with quiet():
            report = evaluate(
                chosen.model,
                chosen.config,
                options=options,
                tasks=tasks,
                task_folder=chosen.task_folder,
                before=chosen.before,
            )
        _check_words(report, chosen.words)
        show(report)
        print(*[save(report, output), *([] if chosen.no_plots else draw(report, output))], sep="\n")


def _check_words(report: EvaluationReport, words: int | None) -> None:
    """Raise if a requested word count exceeds every answer, since the table would lack what it was requested for."""
    used = [split.diversity.used for split in (report.text or {}).values()]
    if words is not None and used and not any(used):
        raise NoiseError(f"words must be at most the words of the longest answer, got {words}: every one is shorter.")
