"""Which plain runs rows are compared with: of as many steps, and the best one of any length."""

import pytest
from reported import SEEDS, record, summarize

from neft_zoo.compare.plots import forest
from neft_zoo.compare.reference import find_reference
from neft_zoo.compare.tables import markdown, per_compute, reference_sentence


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
    assert "symnoise" not in forest(experiment, ("test_loss", "end"))
    shorter = [record("none", seed, 4.4 + 0.02 * seed, 4.4, 2.5, share=0.5, steps=5, row="half") for seed in SEEDS]
    row = next(row for row in summarize(runs + shorter).rows if row.label == "symnoise")
    assert row.baseline.label == "none, 1/2 of the steps" and row.cells["test_loss", "end"].verdict.word == "worse"
    assert row.cells["test_loss", "end"].baseline == pytest.approx(4.42)
    matched = summarize([dict(run, config=dict(run["config"], compute_matched=True)) for run in runs + shorter])
    figure = forest(matched, ("test_loss", "end"))
    assert "symnoise" in figure and "minus none of equal compute" in figure, "two baselines are in one figure"
    changes = dict(control="epochs_2", overrides={"num_train_epochs": 2}, steps=5, row="row-epochs")
    control = [record("none", seed, 4.4 + 0.02 * seed, 4.4, 2.5, **changes) for seed in SEEDS]
    row = next(row for row in summarize(runs + shorter[:1] + control).rows if row.label == "symnoise")
    assert row.baseline.label == "none, 2 epochs", "of two for as many steps, the one with more common seeds"


def test_the_baseline_is_that_of_the_rows_seeds(runs):
    experiment = summarize([run for run in runs if (run["noise"]["name"], run["seed"]) != ("neft_uniform", 0)])
    cell = next(row for row in experiment.rows if row.label == "neft_uniform").cells["test_loss", "end"]
    assert cell.seeds == 2 and cell.baseline == pytest.approx(4.63 + 0.02 * 1.5)
    assert cell.mean - cell.baseline == pytest.approx(cell.difference.mean)
