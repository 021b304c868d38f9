"""`evaluate`: all measures of one model, in one call."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft import PeftModel
from torch.nn import Module

import neft_zoo
from neft_zoo.config.data import as_messages_record
from neft_zoo.config.options import RunOptions
from neft_zoo.errors import NoiseError
from neft_zoo.evaluation.answers import AnsweredSplit, answer, answer_texts, length_controls, memorization
from neft_zoo.evaluation.instruction_following import as_part, load_benchmark
from neft_zoo.evaluation.loading import best_checkpoint, load_model, load_splits, loader, read_recipe
from neft_zoo.evaluation.losses import score, summary
from neft_zoo.evaluation.memorization import overlap
from neft_zoo.evaluation.options import PLACE, Options
from neft_zoo.evaluation.records import Record, with_question
from neft_zoo.evaluation.report import save
from neft_zoo.evaluation.restoring import left_as_found
from neft_zoo.evaluation.results import BestLosses, Curves, EvaluationReport, Losses, Robustness, SplitLosses
from neft_zoo.evaluation.robustness import check_noise, noise_curve, replacement_curve
from neft_zoo.evaluation.safety import prompts_by_label
from neft_zoo.evaluation.scorers import Scorer, score_answers
from neft_zoo.evaluation.side_effects import side_effects
from neft_zoo.evaluation.subject import Subject, prepare
from neft_zoo.evaluation.tasks import find_tasks, run_tasks
from neft_zoo.training.provenance import FILE

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl.trainer.sft_config import SFTConfig

SPLITS = ("train", "test")
TEMPLATE = "test, template "
LONGER = "test, longer"


@dataclass(frozen=True, eq=False)
class Run:
    """A model loaded from a folder, from which its other checkpoints can be loaded."""

    folder: Path
    arguments: RunOptions


def evaluate(
    model: PreTrainedModel | str | Path,
    config: SFTConfig | str | Path,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    train: Sequence[Record] | None = None,
    test: Sequence[Record] | None = None,
    options: Options | None = None,
    scorers: Mapping[str, Scorer] | None = None,
    tasks: Sequence[str] = (),
    task_folder: str | Path | None = None,
    before: PreTrainedModel | str | Path | None = None,
    output: str | Path | None = None,
) -> EvaluationReport:
    """Return the measures of a model with the noise off.

    Args:
        model: a folder or a hub name, with a recipe as `config`; or a model, with a trainer's arguments as `config`,
            which is left in its mode and with its settings.
        config: a recipe's name or file, which sets data, splits, batch size and tokenization; or `SFTConfig`
            arguments.
        tokenizer: required with a model object.
        train, test: records in one of TRL's formats; required with a model object, and otherwise replace the recipe's.
        options: which measures to compute, on how much data and with which constants.
        scorers: functions, by name, that score the answers to the test prompts.
        tasks: of lm-evaluation-harness; `ifeval` is replaced by the part `instructions` on the shipped prompts.
        task_folder: folder with further tasks for it.
        before: the model before fine-tuning, its folder or its name, as the baseline for forgetting, with the same
            tokenizer; by default the base of an adapter, and else the model that the recipe starts from.
        output: folder for `evaluation.json`; None writes nothing.

    Raises:
        NoiseError: if a path, a split, an option or a scorer's result is invalid.

    Example:
        >>> report = evaluate("runs/quickstart", "quickstart")  # doctest: +SKIP
        >>> report.losses.end.test.loss  # doctest: +SKIP
    """
    options, tasks = as_part(options or Options(), tasks)
    folder = None if task_folder is None else Path(task_folder)
    _check(options, tasks, folder)
    given = {name: records for name, records in (("train", train), ("test", test)) if records is not None}
    run, settings, name, splits = None, config, type(model).__name__, given
    if isinstance(model, str | Path):
        name, arguments = str(Path(model).expanduser()), read_recipe(str(model), str(config))
        run, settings = Run(Path(name), arguments), arguments.training
        splits = given if len(given) == 2 else load_splits(arguments, options.records) | given
        model, tokenizer = load_model(name, arguments)
    if len(splits) < 2 or tokenizer is None:
        raise NoiseError("train, test and tokenizer must be given with a model that is passed itself.")
    # Questions are changed in the column that is trained on.
    splits = {name: [as_messages_record(r) for r in islice(splits[name], options.records)] for name in SPLITS}
    models = [each for each in (model, before) if isinstance(each, Module)]
    with left_as_found(tokenizer, *models):  # type: ignore[arg-type]
        subject = prepare(model, tokenizer, settings, _with_variants(splits, options))  # type: ignore[arg-type]
        report = EvaluationReport(name, _noise_of(name), neft_zoo.__version__, options)
        is_base = before is None and isinstance(subject.model, PeftModel)
        load_before = None if is_base else loader(before, str(config), None if run is None else run.arguments)
        report = side_effects(report, subject, splits["test"], load_before)
        report = _measured(report, subject, scorers or {}, run)
        if tasks:
            limit, size = options.records, subject.batch_size
            metrics = run_tasks(subject.model, tokenizer, tasks, folder=folder, limit=limit, batch_size=size)
            report = replace(report, tasks=metrics)
    if output is not None:
        save(report, Path(output))
    return report


def _check(options: Options, tasks: Sequence[str], folder: Path | None) -> None:
    """Raise, before anything is computed, for a missing library, an invalid noise or an unknown task."""
    if "memorization" in options.parts:
        overlap([], [])
    if "robustness" in options.parts:
        check_noise(options.noise)
    if "safety" in options.parts:
        prompts_by_label(options.safety_prompts)
    if "instructions" in options.parts:
        load_benchmark()
    if tasks:
        find_tasks(tasks, folder)


def _with_variants(splits: Mapping[str, Sequence[Record]], options: Options) -> dict[str, Sequence[Record]]:
    """Return the records of both splits, and the test records with changed prompts."""
    variants, test = {**splits}, splits["test"]
    if "robustness" not in options.parts:
        return variants
    for name, template in options.templates.items():
        variants[TEMPLATE + name] = [
            with_question(record, lambda text, template=template: template.replace(PLACE, text)) for record in test
        ]
    variants[LONGER] = [
        with_question(record, lambda text: f"{text} {options.longer}") for record in test[: options.answers]
    ]
    return variants


def _measured(
    report: EvaluationReport, subject: Subject, scorers: Mapping[str, Scorer], run: Run | None
) -> EvaluationReport:
    """Return the report with the measures requested by its options."""
    options, answers = report.options, {}
    parts = {*options.parts}
    if scorers or {"memorization", "text", "robustness"} & parts:
        splits = SPLITS if {"memorization", "text"} & parts else ("test",)
        answers = {split: answer(subject, subject.rows[split][: options.answers], options) for split in splits}
    texts = answers["test"].texts if answers else []
    return replace(
        report,
        losses=_losses(subject, options, run) if "losses" in parts else None,
        memorization=memorization(subject, answers, options) if "memorization" in parts else None,
        text=answer_texts(answers, options) if "text" in parts else None,
        robustness=_robustness(subject, answers["test"], options) if "robustness" in parts else None,
        scores=score_answers(scorers, texts) if scorers and texts else None,
    )


def _losses(subject: Subject, options: Options, run: Run | None) -> Losses:
    """Return the losses of both splits at the end, and at the best checkpoint if the run kept several."""
    end = _split_losses(subject, options)
    best = None if run is None else best_checkpoint(run.folder)
    if run is None or best is None:
        return Losses(end)
    model, _ = load_model(str(best.folder), run.arguments)
    losses = _split_losses(subject.with_model(model), options)
    return Losses(end, BestLosses(str(best.folder), best.step, best.logged_loss, losses.train, losses.test))


def _split_losses(subject: Subject, options: Options) -> SplitLosses:
    train, test = (
        summary(score(subject, subject.rows[split], what=f"{split} loss"), options.bins) for split in SPLITS
    )
    return SplitLosses(train, test)


def _robustness(subject: Subject, answers: AnsweredSplit, options: Options) -> Robustness:
    rows, seed = subject.rows["test"], options.seed
    replaced = replacement_curve(subject, rows, options.rates, seed)
    noisy = noise_curve(subject, rows, options.noise, options.alphas, seed)
    return Robustness(
        curves=Curves(replaced, noisy),
        noise=options.noise,
        flips_from=next((point.alpha for point in noisy if point.flipped), None),
        templates={
            name: summary(score(subject, subject.rows[TEMPLATE + name], what=f"template {name}")).loss
            for name in options.templates
            if _changed(subject, TEMPLATE + name)
        },
        lengths=length_controls(subject, answers, LONGER, options),
    )


def _changed(subject: Subject, variant: str) -> bool:
    """Return whether any test record of a variant differs from the original: plain text has no question to change."""
    originals = {row.index: row.record for row in subject.rows["test"]}
    return any(originals.get(row.index) != row.record for row in subject.rows[variant])


def _noise_of(name: str) -> dict[str, Any] | None:
    """Return the content of a model folder's `noise.json`, which records its noise; None if there is none."""
    path = Path(name) / FILE
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError:
        raise NoiseError(f"{path} must be JSON, but it is damaged.") from None
