"""`evaluate`: everything that is measured of one model, in one call."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import neft_zoo
from neft_zoo.errors import NoiseError
from neft_zoo.evaluation.answers import Answers, answer, describe, length_controls, memorized
from neft_zoo.evaluation.loading import best_checkpoint, load_model, load_splits, read_recipe
from neft_zoo.evaluation.losses import score, summary
from neft_zoo.evaluation.memorization import overlap
from neft_zoo.evaluation.options import PLACE, Options
from neft_zoo.evaluation.records import Record, with_question
from neft_zoo.evaluation.report import save
from neft_zoo.evaluation.robustness import check_noise, noise_curve, replacement_curve
from neft_zoo.evaluation.scorers import Scorer, score_answers
from neft_zoo.evaluation.subject import Subject, prepare
from neft_zoo.evaluation.tasks import find_tasks, run_tasks
from neft_zoo.training.provenance import FILE

TEMPLATE = "test, template "
LONGER = "test, longer"


def evaluate(
    model: Any,
    config: Any,
    *,
    tokenizer: Any = None,
    train: Sequence[Record] | None = None,
    test: Sequence[Record] | None = None,
    options: Options | None = None,
    scorers: Mapping[str, Scorer] | None = None,
    tasks: Sequence[str] = (),
    task_folder: str | Path | None = None,
    output: str | Path | None = None,
) -> dict[str, Any]:
    """Measure a model with the noise off and return a report of plain numbers, lists and mappings.

    Args:
        model: a folder or a name on the hub, with `config` a recipe; or a model, with `config` a trainer's arguments.
        config: a recipe's name or file, which says data, splits, batch size and how records are tokenized; or
            `SFTConfig` arguments.
        tokenizer: of a model that is passed itself.
        train, test: records of a model that is passed itself, in a format of TRL's; with a recipe, instead of its own.
        options: how much is measured and with which constants.
        scorers: by name, what scores the answers to the test prompts.
        tasks: of lm-evaluation-harness.
        task_folder: further tasks for it.
        output: folder for `evaluation.json`; None writes nothing.

    Returns:
        `losses`, `memorization`, `text`, `robustness`, `scores` and `tasks`, None where not measured, and what was
        measured: `model`, `noise`, `neft_zoo`, `options`.

    Raises:
        NoiseError: if a path, a split, an option or a scorer's result is not accepted.

    Example:
        >>> report = evaluate("runs/quickstart", "quickstart")  # doctest: +SKIP
        >>> report["losses"]["end"]["test"]["loss"]  # doctest: +SKIP
    """
    options = options or Options()
    if "memorization" in options.parts:
        overlap([], [])  # a library that is missing is said before anything is computed
    if "robustness" in options.parts:
        check_noise(options.noise)
    folder = None if task_folder is None else Path(task_folder)
    if tasks:
        find_tasks(tasks, folder)
    given = {name: records for name, records in (("train", train), ("test", test)) if records is not None}
    reload = None
    if isinstance(model, str | Path):
        arguments = read_recipe(str(model), str(config))
        splits = given if len(given) == 2 else load_splits(arguments, options.records) | given
        name, settings = str(Path(model).expanduser()), arguments.training
        model, tokenizer = load_model(name, arguments)
        reload = (name, arguments)
    elif len(given) < 2 or tokenizer is None:
        raise NoiseError("train, test and tokenizer must be given with a model that is passed itself.")
    else:
        splits, name, settings = given, type(model).__name__, config
    subject = prepare(model, tokenizer, settings, _with_variants(splits, options))
    report = _measure(subject, options, scorers or {}, reload)
    if tasks:
        limit, size = options.records, subject.batch_size
        report["tasks"] = run_tasks(subject.model, tokenizer, tasks, folder=folder, limit=limit, batch_size=size)
    about = {"model": name, "noise": _noise_of(name), "neft_zoo": neft_zoo.__version__}
    report = {**about, "options": dataclasses.asdict(options), **report}
    if output is not None:
        save(report, Path(output))
    return report


def _with_variants(splits: Mapping[str, Sequence[Record]], options: Options) -> dict[str, list[Record]]:
    """Cut the splits to their first records and add the test records under other prompts."""
    cut = {name: list(splits[name])[: options.records] for name in ("train", "test")}
    if "robustness" not in options.parts:
        return cut
    for name, template in options.templates.items():
        cut[TEMPLATE + name] = [
            with_question(record, lambda text, around=template: around.replace(PLACE, text)) for record in cut["test"]
        ]
    asked = cut["test"][: options.answers]
    cut[LONGER] = [with_question(record, lambda text: f"{text} {options.longer}") for record in asked]
    return cut


def _measure(
    subject: Subject, options: Options, scorers: Mapping[str, Scorer], reload: tuple[str, Any] | None
) -> dict[str, Any]:
    parts, answers = options.parts, Answers({})
    if scorers or {"memorization", "text", "robustness"} & {*parts}:
        wanted = ("train", "test") if {"memorization", "text"} & {*parts} else ("test",)
        answers = Answers({split: answer(subject, split, options) for split in wanted})
    tests = answers.texts("test")
    return {
        "losses": _losses(subject, options, reload) if "losses" in parts else None,
        "memorization": memorized(subject, answers, options) if "memorization" in parts else None,
        "text": describe(answers, options) if "text" in parts else None,
        "robustness": _robustness(subject, answers, options) if "robustness" in parts else None,
        "scores": score_answers(scorers, tests) if scorers and tests else None,
        "tasks": None,
    }


def _losses(subject: Subject, options: Options, reload: tuple[str, Any] | None) -> dict[str, Any]:
    """Return the losses of both splits, at the end and at the best checkpoint, if the run kept one."""

    def both(subject: Subject) -> dict[str, Any]:
        return {
            split: summary(score(subject, subject.rows[split], what=f"{split} loss"), options.bins)
            for split in ("train", "test")
        }

    best = None if reload is None else best_checkpoint(Path(reload[0]))
    found: dict[str, Any] = {"end": both(subject), "best": None}
    if reload is not None and best is not None:
        other, _ = load_model(str(best.folder), reload[1])
        found["best"] = {
            "checkpoint": str(best.folder),
            "step": best.step,
            "logged_loss": best.logged_loss,
            **both(subject.with_model(other)),
        }
    return found


def _robustness(subject: Subject, answers: Answers, options: Options) -> dict[str, Any]:
    rows, seed = subject.rows["test"], options.seed
    curves = {
        "replaced_tokens": replacement_curve(subject, rows, options.rates, seed),
        "noise": noise_curve(subject, rows, options.noise, options.alphas, seed),
    }
    return {
        "curves": {name: points for name, points in curves.items() if points},
        "noise": options.noise,
        "flips_from": next((point["alpha"] for point in curves["noise"] if point["flipped"]), None),
        "templates": {
            name: summary(score(subject, subject.rows[TEMPLATE + name], what=f"template {name}"))["loss"]
            for name in options.templates
        },
        "lengths": length_controls(subject, answers, LONGER, options),
    }


def _noise_of(name: str) -> dict[str, Any] | None:
    """Return what `noise.json` says of the noise a model was trained with; None if there is none."""
    path = Path(name) / FILE
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError:
        raise NoiseError(f"{path} must be JSON, but it is damaged.") from None
