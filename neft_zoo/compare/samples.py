"""What the numbers of a comparison stand on: seeds, test records, answers."""

from __future__ import annotations

from pathlib import Path

from neft_zoo.compare.experiment import Experiment
from neft_zoo.compare.fingerprint import fingerprint
from neft_zoo.config import recipe
from neft_zoo.evaluation.options import read_options


def samples(experiment: Experiment) -> str:
    """Return in words how many seeds, test records and answers there are, and what intervals are over."""
    records = count_test_records(experiment)
    parts = [f"{experiment.seeds} seed{'s' * (experiment.seeds != 1)}"]
    parts.append("a test set of unknown size" if records is None else f"{records} test records in every run")
    parts += [text] if (text := answers(experiment)) else []
    wide = any(
        cell.difference is not None and cell.difference.over_records is not None
        for row in experiment.rows
        for cell in row.cells.values()
    )
    wider = ", and over these and the test records where it says so" if wide else ", not over test records"
    return f"{', '.join(parts)}. Intervals are over seeds{wider}."


def answers(experiment: Experiment) -> str:
    """Return how many answers metrics of generated text stand on and where they are cut, "" without any."""
    chosen = experiment.config.get("evaluation")
    if not isinstance(chosen, dict):
        return ""
    options = read_options(chosen)
    count = "all" if options.answers is None else str(options.answers)
    return f"{count} answers a split and run, of at most {options.max_new_tokens} tokens"


def count_test_records(experiment: Experiment) -> int | None:
    """Return the number of test records: of the runs' own losses, else of the file as long as it has not changed."""
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
