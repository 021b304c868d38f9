"""The sample sizes of a comparison: seeds, test records and answers."""

from __future__ import annotations

from pathlib import Path

from neft_zoo.compare.experiment import Experiment
from neft_zoo.compare.fingerprint import fingerprint
from neft_zoo.config import recipe
from neft_zoo.evaluation.options import Options


def samples(experiment: Experiment) -> str:
    """Return a description of the number of seeds, test records and answers, and of what intervals cover."""
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
    """Return a description of the number and maximum length of answers behind text metrics; "" without any."""
    chosen = experiment.config.get("evaluation")
    if not isinstance(chosen, dict):
        return ""
    plain = Options()
    count, longest = (chosen.get(name, getattr(plain, name)) for name in ("answers", "max_new_tokens"))
    return f"{'all' if count is None else count} answers a split and run, of at most {longest} tokens"


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
