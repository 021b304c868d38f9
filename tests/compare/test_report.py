"""Reports, against numbers recomputed here, and what cannot be reported."""

import csv
import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from neft_zoo import NoiseError
from neft_zoo.cli.main import main
from neft_zoo.compare import results, summary
from neft_zoo.compare.fingerprint import fingerprint
from neft_zoo.compare.formats import number
from neft_zoo.compare.grid import make_grid
from neft_zoo.compare.labels import label
from neft_zoo.compare.records import RunRecord
from neft_zoo.compare.reference import find_reference
from neft_zoo.compare.samples import samples
from neft_zoo.compare.tables import (
    cell_of,
    markdown,
    per_compute,
    reference_rows,
    reference_sentence,
    table,
    verdict_of,
)

SEEDS = range(3)


def summarize(runs):
    """Pivot runs that are given as JSON values."""
    return summary.summarize({Path(f"{place}.json"): RunRecord.from_dict(run) for place, run in enumerate(runs)})


def cells_of(experiment):
    """Return a table's cells by row and metric."""
    return {
        (row.label, f"{name} {when}"): cell_of(row, (name, when))
        for name, when in experiment.columns
        for row in experiment.rows
    }


def record(name, seed, end, best, train, passes=1, status="ok", **changes):
    """Return a run as the runner writes it."""
    points = [
        {"step": 5, "epoch": 1.0, "train_loss": train + 0.1, "test_loss": best},
        {"step": 10, "epoch": 2.0, "train_loss": train, "test_loss": end},
    ]
    made = {"format": 1, "key": f"{name}{seed}", "recipe": {"name": "r", "hash": "h"}, "config": {"learning_rate": 1}}
    made |= {"noise": {"name": name}, "version": 1, "control": "", "overrides": {}, "row": f"row-{name}", "seed": seed}
    made |= {"passes": passes, "share": 1.0, "status": status, "versions": {"torch": "2"}, "device": "cpu"}
    if status == "ok":
        made |= {"end": points[-1], "best": points[0], "tokens": 100, "wall_s": 2.0 * passes, "history": points}
    else:
        made |= {"error": "layers must be below 2, got 99.", "history": []}
    return made | changes


@pytest.fixture
def runs():
    random = np.random.default_rng(0)
    made = []
    for seed in SEEDS:
        noise = random.normal(0, 0.002, 6)
        made += [
            record("none", seed, 4.63 + 0.02 * seed, 4.50, 2.3),
            record("neft_uniform", seed, 4.55 + 0.02 * seed + noise[0], 4.50 + noise[1], 2.5 + noise[2]),
            record("symnoise", seed, 4.70 + 0.02 * seed + noise[3], 4.50 + noise[4], 2.6 + noise[5], passes=2),
        ]
    return made


@pytest.fixture
def folder(runs, tmp_path):
    made = tmp_path / "r"
    made.mkdir()
    for run in runs:
        results.write(results.path_of(made, run["noise"]["name"], run["row"], run["seed"]), RunRecord.from_dict(run))
    return made


def test_numbers_recomputed(runs):
    rows = list(csv.DictReader(io.StringIO(table(summarize(runs)))))
    raw = {}
    for row in rows:
        values, none = (
            np.array([run[row["when"]][row["metric"]] for run in runs if run["noise"]["name"] == name])
            for name in (row["row"], "none")
        )
        assert float(row["mean"]) == pytest.approx(values.mean())
        if row["row"] == "none":
            assert row["difference"] == row["p"] == "" and row["verdict"] == "-"
            continue
        gap = values - none
        error = gap.std(ddof=1) / np.sqrt(len(gap))
        assert float(row["difference"]) == pytest.approx(gap.mean())
        assert float(row["low"]) == pytest.approx(gap.mean() - 4.30265273 * error, rel=1e-6)
        assert float(row["high"]) == pytest.approx(gap.mean() + 4.30265273 * error, rel=1e-6)
        t = abs(gap.mean() / error)
        raw[row["row"], row["metric"], row["when"]] = 1 - t / np.sqrt(t * t + 2)  # two degrees of freedom
        assert float(row["p"]) == pytest.approx(raw[row["row"], row["metric"], row["when"]], rel=1e-4)
        cost = 2.0 if row["row"] == "symnoise" else 1.0
        assert float(row["compute"]) == float(row["time"]) == cost
        assert float(row["per_compute"]) == pytest.approx(gap.mean() / cost)
    for metric in ("test_loss", "train_loss"):  # a question each: both strategies are at their defaults
        question = {key: p for key, p in raw.items() if key[1] == metric}
        corrected, largest = {}, 0.0
        for rank, (key, p) in enumerate(sorted(question.items(), key=lambda item: item[1])):
            largest = corrected[key] = max(largest, min(1.0, p * (len(question) - rank)))
        for row in rows:
            key = row["row"], row["metric"], row["when"]
            if key in corrected:
                assert float(row["corrected_p"]) == pytest.approx(corrected[key], rel=1e-4)
                assert row["verdict"] not in ("better", "worse", "lower", "higher") or corrected[key] <= 0.05


def test_verdicts_and_order(runs):
    experiment = summarize(runs)
    told = {place: cell.verdict.word for place, cell in cells_of(experiment).items() if cell.verdict}
    assert told["neft_uniform", "test_loss end"] == "better"
    assert told["symnoise", "test_loss end"] == "worse"
    assert told["neft_uniform", "test_loss best"] in ("practically the same", "undecided")
    assert told["symnoise", "train_loss end"] == "higher", "a training loss is neither good nor bad"
    assert experiment.rows[0].label == "none"
    assert experiment.columns == [("test_loss", "end"), ("test_loss", "best"), ("train_loss", "end")]


def test_failed_and_missing_are_said_and_never_numbers(runs):
    runs[1] = record("neft_uniform", 0, 0, 0, 0, status="failed")
    del runs[4]["end"]["train_loss"]
    experiment = summarize(runs)
    row = next(row for row in experiment.rows if row.label == "neft_uniform")
    cell = row.cells["test_loss", "end"]
    assert cell.seeds == 2 and len(row.runs) == 3 and "(1 of 3 seeds failed)" in verdict_of(row, cell)
    cell = row.cells["train_loss", "end"]
    assert cell.seeds == 1 and cell.verdict.word == "one seed"
    runs[7] = record("neft_uniform", 2, 0, 0, 0, status="failed")
    text = markdown(summarize(runs))
    assert "neft_uniform, seed 0, failed: layers must be below 2, got 99." in text
    half = [record("none", seed, 4.5 + 0.01 * seed, 4.5, 2.9, share=0.5, steps=5, row="half") for seed in SEEDS]
    reference = reference_rows(find_reference(summarize(runs + half)))
    assert [line[-1] for line in reference if line[0] == "neft_uniform"] == [
        "undecided: one seed (2 of 3 seeds failed)"
    ]
    assert re.search(
        r"\| neft_uniform \| 0 of 3 \| - \| - \| - \| - \| - \| not measured \(2 of 3 seeds failed\)", text
    )
    assert "nan" not in text and "None" not in text


def test_a_page_corrects_for_what_it_shows_as_a_report_does(runs):
    records = {Path(f"{place}.json"): RunRecord.from_dict(run) for place, run in enumerate(runs)}
    report, page = summary.summarize(records), summary.summarize(records, included=lambda *column: True)
    assert ("gap", "end") in page.columns and ("train_loss", "best") in page.rows[1].cells
    for row, same in zip(report.rows[1:], page.rows[1:], strict=True):
        for column in report.columns:
            assert row.cells[column].verdict == same.cells[column].verdict, (row.label, column)


def test_a_share_of_nothing_in_both_does_not_repeat_the_baseline(runs):
    for seed in SEEDS:
        changes = dict(control="drop", overrides={"x": 1}, row="same")
        runs.append(record("none", seed, 4.63 + 0.02 * seed, 4.50, 2.3, **changes))
    cells = cells_of(summarize([run | {"evaluation": {"test_exact": 0.0}} for run in runs]))
    assert cells["drop", "test_exact end"].verdict.word == "identical"
    verdict = cells["neft_uniform", "test_exact end"].verdict
    assert verdict.word == "undecided" and verdict.p == 1.0, "its options do change something"


def test_a_difference_says_how_many_seeds_are_paired(runs):
    experiment = summarize([run for run in runs if (run["noise"]["name"], run["seed"]) != ("none", 0)])
    cell = next(row for row in experiment.rows if row.label == "neft_uniform").cells["test_loss", "end"]
    assert cell.seeds == 3 and cell.pairs == len(cell.difference.values) == 2
    assert "| neft_uniform | 3, 2 paired |" in markdown(experiment) and "| none | 2 |" in markdown(experiment)
    lines = list(csv.DictReader(io.StringIO(table(experiment))))
    assert [line["pairs"] for line in lines[:2]] == ["2", "2"] and lines[1]["seeds"] == "3"


def test_other_test_records_are_said(runs):
    for run in runs:
        run["record_losses"] = {"tokens": [10] * 4, "end": [4.6] * 4, "best": [4.6] * 4}
    assert not any("Runs differ" in note for note in summarize(runs).notes)
    runs[1]["record_losses"] = {"tokens": [10] * 3, "end": [4.6] * 3, "best": [4.6] * 3}
    assert any("Runs differ in test records" in note for note in summarize(runs).notes)


def test_noise_that_is_not_compared_with_shorter_training_is_said(runs):
    (note,) = summarize(runs).notes
    assert "stopping earlier may do as well as noise: compare with --lengths 1/4,1/2" in note
    shorter = [record("none", seed, 4.4, 4.4, 2.5, share=0.5, steps=5, row="half") for seed in SEEDS]
    assert not summarize(runs + shorter).notes
    assert not summarize([run for run in runs if run["noise"]["name"] == "none"]).notes


def test_plain_training_of_other_epochs_is_a_length_and_a_reference(runs):
    for seed in SEEDS:
        changes = dict(control="epochs_1", overrides={"num_train_epochs": 1}, row="row-epochs")
        runs.append(record("none", seed, 4.50 + 0.02 * seed, 4.50, 2.9, **changes))
        runs.append(
            record("none", seed, 4.63 + 0.02 * seed, 4.50, 2.3, control="drop", overrides={"x": 1}, row="same")
        )
    experiment = summarize(runs)
    assert [row.label for row in experiment.rows] == ["none", "neft_uniform", "symnoise", "none, 1 epoch", "drop"]
    questions = [row.question for row in experiment.rows[1:]]
    assert questions == ["defaults", "defaults", "lengths", "controls"]
    assert experiment.rows[4].cells["test_loss", "end"].verdict.word == "identical"
    reference = find_reference(experiment)
    assert reference.row.label == "none, 1 epoch" and not reference.halves
    told = {row.label: (round(each.mean, 2), verdict.word) for row, each, verdict in reference.rows}
    assert told["neft_uniform"] == (0.05, "worse") and told["drop"] == (0.13, "undecided")  # equal at three seeds
    text = markdown(experiment)
    assert "none, 1 epoch: test loss 4.5200 at the end of training, chosen and measured on the same test" in text
    assert "identical: not a test" in text


def test_the_reference_uses_the_halves_of_the_test_records_once_every_run_has_them(runs):
    for seed in SEEDS:
        runs.append(record("none", seed, 4.50, 4.50, 2.9, share=0.5, steps=5, row="half"))
    # On the choosing half plain training for half as long is worse, elsewhere it is better.
    worse = {run["row"]: 0.2 * (run["row"] == "half") for run in runs}
    for run in runs:
        whole = run["end"]["test_loss"]
        run["end"] |= {"test_choosing_loss": whole + worse[run["row"]], "test_reporting_loss": whole - 0.1}
    reference = find_reference(summarize(runs))
    assert reference.halves and reference.row.label == "none" and reference.mean == pytest.approx(4.55)
    old = next(run for run in runs if run["noise"]["name"] == "symnoise")
    del old["end"]["test_choosing_loss"], old["end"]["test_reporting_loss"]
    reference = find_reference(summarize(runs))
    assert not reference.halves and reference.row.label == "none, 1/2 of the steps"
    assert all(len(each.values) == len(SEEDS) for _, each, _ in reference.rows), "no run is left out"


def test_a_loss_that_repeats_in_every_digit_is_no_test_and_a_share_that_does_may_be_one(runs):
    for run in runs:
        run["evaluation"] = {"train_exact": 0.0}
        run["end"]["train_loss"] = run["history"][-1]["train_loss"] = 2.3 + 0.01 * run["seed"] * run["passes"]
    experiment = summarize(runs)
    row = next(row for row in experiment.rows if row.label == "neft_uniform")
    words = {name: row.cells[name, "end"].verdict.word for name in ("test_loss", "train_loss", "train_exact")}
    assert words == {"test_loss": "better", "train_loss": "identical", "train_exact": "undecided"}
    other = next(row for row in experiment.rows if row.label == "symnoise").cells["train_loss", "end"]
    assert other.verdict.p == other.difference.p, "not corrected for what is no test"


def of_lengths(half, quarter):
    """Return runs of `none`, a strategy and plain training for a half and a quarter, by their losses per seed."""
    made = []
    for seed in range(5):
        base = 4.6 + 0.02 * seed
        made += [record("none", seed, base, base, 2.3)]
        made += [record("neft_uniform", seed, base - 0.02 + 0.001 * seed, base - 0.02, 2.5)]
    for share, losses in ((0.5, half), (0.25, quarter)):
        for seed, loss in losses.items():
            changes = dict(share=share, steps=int(10 * share), row=f"row-{share}")
            made.append(record("none", seed, 4.6 + 0.02 * seed + loss, 4.7, 2.9, **changes))
    return made


def test_a_length_of_few_seeds_does_not_choose_the_reference_for_all():
    half = {seed: -0.05 - 0.002 * seed for seed in range(5)} | {0: 0.004}
    complete = find_reference(summarize(of_lengths(half, {})))
    assert complete.row.label == "none, 1/2 of the steps" and complete.rows[0][2].word == "undecided"
    for loss in (0.3, -0.3):  # the first run of another length, poor or lucky
        reference = find_reference(summarize(of_lengths(half, {0: loss})))
        assert reference.row.label == complete.row.label, "at seed 0 alone none is the better one"
        assert reference.rows[0][1:] == complete.rows[0][1:]
        text = reference_sentence(reference)
        assert text.endswith(", without none, 1/4 of the steps (too few seeds).") and "chosen on" not in text
    reference = find_reference(summarize(of_lengths(half, {seed: 0.3 for seed in range(3)})))
    assert "; the length was chosen on 3 of 5 seeds." in reference_sentence(reference), "three are enough"
    assert find_reference(summarize(of_lengths({0: -0.3}, {}))) is None


def test_a_length_whose_runs_all_failed_is_no_strategy():
    runs = of_lengths({seed: -0.05 for seed in range(5)}, {})
    runs += [record("none", seed, 0, 0, 0, status="failed", share=0.25, row="quarter") for seed in range(5)]
    assert [row.label for row, _, _ in find_reference(summarize(runs)).rows] == ["neft_uniform"]


def test_at_equal_compute_a_row_without_a_plain_run_of_its_steps_is_no_test(runs):
    for run in runs:
        run["share"] = 1.0 / run["passes"]
        run["steps"] = 10 // run["passes"]
    experiment = summarize(runs)
    words = {row.label: row.cells["test_loss", "end"].verdict.word for row in experiment.rows[1:]}
    assert words == {"neft_uniform": "better", "symnoise": "no baseline"}
    assert "No plain training for as many steps as symnoise" in experiment.notes[-1]
    unmatched = next(row for row in experiment.rows if row.label == "symnoise")
    assert per_compute(unmatched, unmatched.cells["test_loss", "end"]) is None, "it says nothing of the noise"
    shorter = [record("none", seed, 4.4 + 0.02 * seed, 4.4, 2.5, share=0.5, steps=5, row="half") for seed in SEEDS]
    row = next(row for row in summarize(runs + shorter).rows if row.label == "symnoise")
    assert row.baseline.label == "none, 1/2 of the steps" and row.cells["test_loss", "end"].verdict.word == "worse"
    assert row.cells["test_loss", "end"].baseline == pytest.approx(4.42)
    changes = dict(control="epochs_2", overrides={"num_train_epochs": 2}, steps=5, row="row-epochs")
    control = [record("none", seed, 4.4 + 0.02 * seed, 4.4, 2.5, **changes) for seed in SEEDS]
    row = next(row for row in summarize(runs + shorter[:1] + control).rows if row.label == "symnoise")
    assert row.baseline.label == "none, 2 epochs", "of two for as many steps, the one with more common seeds"


def test_the_baseline_is_that_of_the_rows_seeds(runs):
    experiment = summarize([run for run in runs if (run["noise"]["name"], run["seed"]) != ("neft_uniform", 0)])
    cell = next(row for row in experiment.rows if row.label == "neft_uniform").cells["test_loss", "end"]
    assert cell.seeds == 2 and cell.baseline == pytest.approx(4.63 + 0.02 * 1.5)
    assert cell.mean - cell.baseline == pytest.approx(cell.difference.mean)


def test_a_recipe_states_margins(runs, tmp_path):
    wide = [{**run, "margins": {"test_loss": 0.3}} for run in runs]
    words = {
        cell.verdict.word for (_, name), cell in cells_of(summarize(wide)).items() if cell.verdict and "test" in name
    }
    assert words == {"practically the same"}
    recipe = tmp_path / "r.yaml"
    for written in ("0.02", "2e-2"):
        recipe.write_text(f"extends: quickstart\nmargins: {{test_loss: {written}}}\n")
        assert make_grid(str(recipe)).margins == {"test_loss": 0.02}
    plain = make_grid("quickstart")
    assert fingerprint(make_grid(str(recipe)).settings) == fingerprint(plain.settings), "results stay valid"
    for wrong in ("{test_loss: -1}", "{tset_loss_: 1}", "0.02", "{test_loss: yes}", "{test_loss: low}"):
        recipe.write_text(f"extends: quickstart\nmargins: {wrong}\n")
        with pytest.raises(NoiseError, match="margins must map metrics"):
            make_grid(str(recipe))
    recipe.write_text("extends: quickstart\nmargins: {tset_loss: 0.02}\n")
    with pytest.raises(NoiseError, match="got 'tset_loss'; did you mean test_loss"):
        make_grid(str(recipe))
    measured = ("test_accuracy", "nf4_loss", "noise_15_loss", "replaced_tokens_0.1_loss", "template_headed_loss")
    recipe.write_text(f"extends: quickstart\nmargins: {{{', '.join(f'{name}: 1' for name in measured)}}}\n")
    assert make_grid(str(recipe)).margins.keys() == {*measured}


def test_an_interval_over_records_stands_beside_that_over_seeds(runs):
    random = np.random.default_rng(3)
    for run in runs:
        shifts = {"none": 0.0, "neft_uniform": -0.08, "symnoise": 0.07}
        losses = 4.63 + shifts[run["noise"]["name"]] + 0.1 * random.standard_normal(64)
        run["record_losses"] = {"tokens": [10] * 64, "end": losses.tolist(), "best": losses.tolist()}
    experiment = summarize(runs)
    for when in ("end", "best"):
        each = next(row for row in experiment.rows if row.label == "symnoise").cells["test_loss", when].difference
        assert each.over_records and each.over_records[0] < 0.07 < each.over_records[1]
    text = markdown(experiment)
    assert (
        "3 seeds, 64 test records in every run. Intervals are over seeds, and over these and the test records" in text
    )
    assert re.search(r"\| \+0\.0\d+ to \+0\.0\d+ \(over records too: \+0\.0\d+ to \+0\.\d+\) \|", text)
    assert "over records too" not in text.partition("## Train loss")[2].partition("Losses are")[0]
    lines = list(csv.DictReader(io.StringIO(table(experiment))))
    assert float(lines[2]["records_low"]) < float(lines[2]["records_high"]) and lines[-1]["records_low"] == ""


def test_what_the_numbers_stand_on(runs, tmp_path):
    assert samples(summarize(runs)) == (
        "3 seeds, a test set of unknown size. Intervals are over seeds, not over test records."
    )
    (tmp_path / "test.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    config = {"dataset_name": str(tmp_path), "dataset_test_split": "test", "evaluation": {"answers": 7}}
    shipped = [{**run, "config": config, "recipe": {"name": "r", "hash": fingerprint(config)}} for run in runs]
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
        ({"records": None, "answers": None}, ", all answers a split and run, of at most 128 tokens"),
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
        run["record_losses"] = {"tokens": [10] * 40, "end": [4.6] * 40, "best": [4.6] * 40}
    assert samples(summarize(runs)).partition(". Intervals")[0] == f"3 seeds, 40 test records in every run{told}"


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


def test_rows_are_named_by_what_differs():
    rows = [record("neft_uniform", 0, 1, 1, 1, row=str(a)) for a in (5.0, 10.0)] + [record("none", 0, 1, 1, 1)]
    for row, alpha in zip(rows, (5.0, 10.0), strict=False):
        row["noise"] |= {"alpha": alpha, "where": "real"}
    rows[1]["version"] = 2
    rows.append(record("none", 0, 1, 1, 1, control="label_smoothing", row="control"))
    named = label(map(RunRecord.from_dict, rows))
    assert [named["5.0"], named["10.0"], named["control"], named["row-none"]] == [
        "neft_uniform alpha=5 version 1",
        "neft_uniform alpha=10 version 2",
        "label_smoothing",
        "none",
    ]


def test_a_control_of_one_option_is_named_by_its_value():
    rows = [
        record("none", 0, 1, 1, 1, control="weight_decay", row=str(value), overrides={"weight_decay": value})
        for value in (0.01, 0.1)
    ]
    assert list(label(map(RunRecord.from_dict, rows)).values()) == ["weight_decay=0.01", "weight_decay=0.1"]


def test_an_argument_that_is_not_the_default_is_named():
    def named(noise, **more):
        return list(label([RunRecord.from_dict(record("x", 0, 1, 1, 1, noise=noise, **more))]).values())

    assert named({"name": "neft_uniform", "alpha": 15.0}) == ["neft_uniform alpha=15"]
    assert named({"name": "neft_uniform", "alpha": 5.0}) == ["neft_uniform"]
    assert named({"name": "vat", "start": 9.0}, version=1) == ["vat"], "another version had other defaults"
    assert named({"name": "of a package that is not here", "alpha": 3.0}) == ["of a package that is not here"]


def test_markdown_is_aligned(runs):
    text = markdown(summarize(runs))
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1 and text.count("## ") == 3 and "+0.0000" not in text.split("##")[1].splitlines()[4]


def test_html_stands_alone(folder, capsys):
    pytest.importorskip("matplotlib")
    assert main(["report", str(folder), "--format", "html"]) == 0
    path = folder / "report.html"
    assert capsys.readouterr().out.strip() == str(path)
    text = path.read_text()
    addresses = set(re.findall(r"""(?:href|src)=["']([^"'#]+)""", text))
    assert not addresses and "@import" not in text and "<script" not in text
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(drawings) == 4
    for drawing in drawings:
        ElementTree.fromstring(drawing)
    assert "neft_uniform (3 seeds)" in drawings[0] and "<td>better</td>" in text
    main(["report", str(folder), "--format", "html", "--output", str(folder / "again.html")])
    assert (folder / "again.html").read_text() == text, "the same results give the same page"


def test_a_panel_shows_none_at_the_rows_own_seeds(runs):
    pytest.importorskip("matplotlib")
    from neft_zoo.compare.html import html
    from neft_zoo.compare.plots import by_seed, draw_curves

    runs[1] = record("neft_uniform", 0, 0, 0, 0, status="failed")
    runs += [record(name, 0, 4.6, 4.5, 2.3) for name in ("fgm", "hype", "pdr", "vat")]
    rows = summarize(runs).rows
    figure = draw_curves({row.label: by_seed(row.records, "test_loss") for row in rows}, "test loss")
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    assert {"neft_uniform (2 seeds)", "symnoise (3 seeds)", "fgm (1 seed)"} <= panels.keys() and len(panels) == 6
    gray, *_ = panels["neft_uniform (2 seeds)"].lines
    assert list(gray.get_ydata()) == pytest.approx([4.5, 4.63 + 0.02 * 1.5])
    assert list(panels["fgm (1 seed)"].lines[0].get_ydata()) == pytest.approx([4.5, 4.63]), "of seed 0 alone"
    text = html(summarize(runs))
    targets = re.findall(r'<h2 id="([^"]+)"', text)
    links = re.findall(r'href="#([^"]+)"', text.partition("<nav>")[2].partition("</nav>")[0])
    assert targets == links == ["test_loss-end", "test_loss-best", "train_loss-end"]
    only = [run for run in runs if run["noise"]["name"] == "none"]
    assert "none (3 seeds)" in html(summarize(only))


def test_a_difference_that_rounds_to_nothing_has_no_minus():
    assert number(-0.00001, 4, sign=True) == "+0.0000" and number(-0.00005001, 4, sign=True) == "-0.0001"
    assert number(None, 2) == "-" and number(0.0, 2) == "0.00" and number(1234.5, 1, typeset=True) == "1,234.5"


def test_formats_and_output(folder, capsys):
    assert main(["report", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("# r: strategies against `none`")
    assert main(["report", str(folder), "--output", str(folder / "r.md")]) == 0
    assert (folder / "r.md").read_text() == shown
    assert capsys.readouterr().out.strip() == str(folder / "r.md")
    assert main(["report", str(folder), "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("r,none,test_loss,end,3,3,4.6")


def damage(folder):
    path = sorted(folder.glob("*.json"))[0]
    path.write_text(path.read_text()[:100])
    return f"{path} must hold the result of a run, but it is damaged"


def mix(folder):
    path = sorted(folder.glob("*.json"))[-1]
    run = json.loads(path.read_text())
    path.write_text(json.dumps(run | {"recipe": {"name": "r", "hash": "other"}, "config": {"learning_rate": 2}}))
    return "must hold results of one recipe, got different ones (learning_rate 1 and 2)"


def take_none(folder):
    for path in folder.glob("none-*"):
        path.unlink()
    return "results must hold runs of none"


def take_all(folder):
    for path in folder.glob("*.json"):
        path.unlink()
    return "the folder must hold results of neft-zoo compare"


def copy_one(folder):
    path = sorted(folder.glob("*.json"))[0]
    (folder / "copy.json").write_text(path.read_text())
    return f"{folder} must hold one result of a row and seed, got copy.json and {path.name}."


def something_else(folder):
    (folder / "a.json").write_text('{"a": 1}')
    return "must hold the result of a run in format 1"


@pytest.mark.parametrize("spoil", [damage, mix, take_none, take_all, copy_one, something_else])
def test_what_cannot_be_reported(folder, capsys, spoil):
    message = spoil(folder)
    assert main(["report", str(folder)]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_the_folder_above_names_those_with_results(folder, capsys):
    assert main(["report", str(folder.parent)]) == 2
    assert f"did you mean {folder}?" in capsys.readouterr().err
    assert main(["report", str(folder), "--output", str(folder / "no" / "r.md")]) == 2
