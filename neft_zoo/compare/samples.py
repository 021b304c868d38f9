"""The sample sizes of a comparison: seeds, test records and answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from neft_zoo.compare.experiment import Experiment, Row
from neft_zoo.compare.fingerprint import fingerprint
from neft_zoo.config import recipe
from neft_zoo.errors import NoiseError
from neft_zoo.evaluation.options import PARTS, Options
from neft_zoo.evaluation.shipped import shipped_records

ANSWERED = ("memorization", "text", "robustness")  # parts on answers, the last one to test prompts only
ON_TEST_RECORDS = {*PARTS, "quantization", "prompts"}


def samples(experiment: Experiment) -> str:
    """Return a description of the number of seeds, records and answers measured, and of what intervals cover."""
    options = _options(experiment)
    parts = [f"{experiment.seeds} seed{'s' * (experiment.seeds != 1)}"]
    parts.append(records_in_words(experiment, " in every run") or "a test set of unknown size")
    if options is not None:
        parts += [*filter(None, [answers(experiment)]), *_shipped(options)]
    wide = any(
        cell.difference is not None and cell.difference.over_records is not None
        for row in experiment.rows
        for cell in row.cells.values()
    )
    wider = ", and over these and the test records where it says so" if wide else ", not over test records"
    return f"{', '.join(parts)}. Intervals are over seeds{wider}."


def records_in_words(experiment: Experiment, where: str = "") -> str:
    """Return the number of test records, and of those that the final model is evaluated on; "" if it is unknown.

    Args:
        experiment: the experiment.
        where: what follows the first number.
    """
    records, options = count_test_records(experiment), _options(experiment)
    if records is None:
        return ""
    first = options.records if options is not None and ON_TEST_RECORDS & {*options.parts} else None
    part = "" if first is None or first >= records else f", of which the final model is evaluated on the first {first}"
    return f"{records} test records{where}{part}"


def answers(experiment: Experiment, rows: Sequence[Row] | None = None) -> str:
    """Return a description of the number and maximum length of answers behind text metrics; "" without any.

    Args:
        experiment: the experiment.
        rows: those whose runs are described; None for all.
    """
    options = _options(experiment)
    runs = [record for row in (experiment.rows if rows is None else rows) for record in row.records]
    evaluated = sum(bool(record.evaluation) for record in runs)
    if options is None or not {*ANSWERED} & {*options.parts} or not evaluated:
        return ""
    limit = min((count for count in (options.answers, options.records) if count is not None), default=None)
    trained = experiment.config.get("train_records")
    of_test, of_train = (
        min((count for count in (limit, records) if isinstance(count, int)), default=None)
        for records in (count_test_records(experiment), trained)
    )
    first, second = ("all" if count is None else count for count in (of_test, of_train))
    at_most = "" if isinstance(trained, int) or limit is None else "at most "
    if not {*ANSWERED[:-1]} & {*options.parts}:
        text = f"{first} answers to test prompts a run"
    elif of_test == of_train:
        text = f"{first} answers a split and run"
    else:
        text = f"{first} answers to test prompts and {at_most}{second} to train prompts a run"
    some = f" (in {evaluated} of {len(runs)} runs)" if evaluated < len(runs) else ""
    return f"{text}, of at most {options.max_new_tokens} tokens{some}"


def _options(experiment: Experiment) -> Options | None:
    """Return the options of the evaluation; None without one, or if it was of another version."""
    chosen = experiment.config.get("evaluation")
    try:
        return Options.from_dict(chosen) if isinstance(chosen, dict) else None
    except (NoiseError, TypeError):
        return None


def _shipped(options: Options) -> Iterator[str]:
    """Yield descriptions of the shipped sets that side effects are measured on."""
    if "forgetting" in options.parts:
        passages, problems = (len(shipped_records(name, options.unrelated_records)) for name in ("general", "gsm8k"))
        yield f"{passages} passages and {problems} GSM8K problems for forgetting"
    if "safety" in options.parts:
        yield f"{len(shipped_records('xstest', options.safety_prompts))} XSTest prompts"
    if "instructions" in options.parts:
        yield f"{len(shipped_records('ifeval', options.instruction_prompts))} IFEval prompts"


def count_test_records(experiment: Experiment) -> int | None:
    """Return the number of test records, from the runs' losses or else from the file, if it is unchanged."""
    for row in experiment.rows:
        for record in row.records:
            if record.record_losses:
                return len(record.record_losses["tokens"])
    config = experiment.config
    folder = str(config.get("dataset_name", "")).replace(recipe.PLACEHOLDER, str(recipe.folder()))
    file = Path(folder).expanduser() / f"{config.get('dataset_test_split')}.jsonl"
    if not file.is_file() or fingerprint(config) != experiment.none.runs[0][1].recipe.hash:
        return None
    with file.open(encoding="utf-8") as lines:
        return sum(1 for line in lines if line.strip())
