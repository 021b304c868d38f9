"""What the numbers of a report stand on, and what its rows cost."""

import pytest
from reported import SEEDS, record, summarize

from neft_zoo.compare.fingerprint import fingerprint
from neft_zoo.compare.samples import answers, samples
from neft_zoo.compare.tables import markdown, per_compute


def test_what_the_numbers_stand_on(runs, tmp_path):
    assert samples(summarize(runs)) == (
        "3 seeds, a test set of unknown size. Intervals are over seeds, not over test records."
    )
    (tmp_path / "test.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    config = {"dataset_name": str(tmp_path), "dataset_test_split": "test", "evaluation": {"answers": 7}}
    recipe = {"name": "r", "hash": fingerprint(config)}
    shipped = [{**run, "config": config, "recipe": recipe, "evaluation": {"test_words": 3.0}} for run in runs]
    told = samples(summarize(shipped))
    assert told.startswith(
        "3 seeds, 2 test records in every run, 2 answers to test prompts and at most 7 to train prompts a run, "
        "of at most 128 tokens."
    )
    (tmp_path / "test.jsonl").write_text('{"a": 1}\n')
    assert "a test set of unknown size" in samples(summarize(shipped)), "the file is not the one of the runs any more"


@pytest.mark.parametrize(
    ("evaluation", "told"),
    [
        ({}, ", 40 answers to test prompts and at most 128 to train prompts a run, of at most 128 tokens"),
        ({"answers": 4}, ", 4 answers a split and run, of at most 128 tokens"),
        (
            {"records": 2, "answers": 4, "max_new_tokens": 64},
            ", of which the final model is evaluated on the first 2, 2 answers a split and run, of at most 64 tokens",
        ),
        (
            {"records": None, "answers": None},
            ", 40 answers to test prompts and all to train prompts a run, of at most 128 tokens",
        ),
        ({"parts": ["robustness"], "answers": 32}, ", 32 answers to test prompts a run, of at most 128 tokens"),
        ({"parts": ["losses"]}, ""),
        (
            {"parts": ["forgetting", "safety", "instructions"], "records": 2, "unrelated_records": 64},
            ", 64 passages and 64 GSM8K problems for forgetting, 249 XSTest prompts, 100 IFEval prompts",
        ),
        ({"parts": ["of a later version"]}, ""),
        (None, ""),
    ],
)
def test_sample_sizes_are_those_that_were_measured(runs, evaluation, told):
    for run in runs:
        run["config"] = {"learning_rate": 1, "evaluation": evaluation}
        run["evaluation"] = None if evaluation is None else {"test_words": 3.0}
        run["record_losses"] = {"tokens": [10] * 40, "end": [4.6] * 40, "best": [4.6] * 40}
    assert samples(summarize(runs)).partition(". Intervals")[0] == f"3 seeds, 40 test records in every run{told}"


def test_answers_are_those_of_the_runs_that_were_evaluated(runs):
    for run in runs:
        run["config"] = {"learning_rate": 1, "evaluation": {"answers": 32}, "train_records": 24}
        run["evaluation"] = {"test_words": 3.0} if run["seed"] else None
        run["record_losses"] = {"tokens": [10] * 40, "end": [4.6] * 40, "best": [4.6] * 40}
    told = "32 answers to test prompts and 24 to train prompts a run, of at most 128 tokens"
    experiment = summarize(runs)
    assert answers(experiment) == f"{told} (in 6 of 9 runs)" and f", {told} (in 6 of 9 runs)." in samples(experiment)
    assert answers(experiment, experiment.rows[1:2]) == f"{told} (in 2 of 3 runs)"
    for run in runs:
        run["evaluation"] = None
    assert answers(summarize(runs)) == ""


def test_failed_runs_are_no_seeds(runs):
    kept = [run for run in runs if run["seed"] == 0]
    failed = [record(run["noise"]["name"], run["seed"], 0, 0, 0, status="failed") for run in runs if run["seed"]]
    assert samples(summarize(kept + failed)).startswith("1 seed, ")


def test_less_compute_has_no_difference_per_compute(runs):
    """Dividing by it would tell what a row that trained longer would do."""
    half = [record("none", seed, 4.4 + 0.02 * seed, 4.4, 2.5, share=0.5, tokens=50, row="half") for seed in SEEDS]
    rows = {row.label: row for row in summarize(runs + half).rows}
    costs = {label: per_compute(row, row.cells["test_loss", "end"]) for label, row in rows.items()}
    assert costs["none, 1/2 of the steps"] is None and costs["symnoise"] == pytest.approx(0.035, abs=0.002)


def test_time_on_a_cpu_is_that_of_the_cpu(runs):
    """Runs at another time, beside other programs, once showed half as many steps as 9.75 times the time."""
    for run in runs:
        run |= {"device": "cpu", "cpu_s": 10.0 * run["passes"], "wall_s": 100.0 if run["passes"] > 1 else 10.0}
    assert {row.label: row.time for row in summarize(runs).rows}["symnoise"] == 2
    for run in runs:
        run["device"] = "a GPU"
    assert {row.label: row.time for row in summarize(runs).rows}["symnoise"] == 10


def test_times_are_of_one_clock(runs):
    """Results of before 0.2 may lack the CPU time, which takes a third of the time by the clock here."""
    for run in runs:
        run |= {"wall_s": 30.0} if run["noise"]["name"] == "neft_uniform" else {"cpu_s": 10.0, "wall_s": 30.0}
    times = {row.label: row.time for row in summarize(runs).rows}
    assert times == {"none": 1, "neft_uniform": 1, "symnoise": 1}


def test_costs_that_were_not_measured_are_missing(runs):
    for run in runs:
        if run["noise"]["name"] == "neft_uniform":
            del run["tokens"], run["wall_s"]
    rows = {row.label: row for row in summarize(runs).rows}
    assert rows["neft_uniform"].compute is None and rows["neft_uniform"].time is None
    assert rows["symnoise"].compute == 2 and rows["none"].time == 1
    cells = next(line for line in markdown(summarize(runs)).splitlines() if line.startswith("| neft_uniform")).split(
        "|"
    )
    assert [cell.strip() for cell in cells].count("-") == 3, "compute, time and the difference per compute"
