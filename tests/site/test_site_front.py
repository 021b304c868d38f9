"""The front page's question, answered from made-up results of many and of few runs."""

import json
import re

import made_up
import pytest

from neft_zoo.compare import loading, results
from neft_zoo.compare.records import RunRecord

pytest.importorskip("latex2mathml", reason="the site needs neft-zoo[docs]")
from builder import front  # noqa: E402

MODEL = {"model_name_or_path": "./build/smollm2", "num_train_epochs": 2}


def real_model(folder, seeds=1, shorter=()):
    """Write `none` and `neft_uniform` on a real model, and plain training of half as many steps at some seeds."""
    effects = {name: made_up.EFFECTS[name] for name in ("none", "neft_uniform 5")}
    for path in made_up.write(folder, seeds=seeds, effects=effects).glob("*.json"):
        run = json.loads(path.read_text())
        run |= {"config": {**run["config"], **MODEL}, "recipe": {"name": "smollm2", "hash": "smollm2"}}
        path.write_text(json.dumps(run))
        if run["noise"]["name"] == "none" and run["seed"] in shorter:
            changed = {"control": "epochs_1", "overrides": {"num_train_epochs": 1}, "row": "epochs_1"}
            half = {**run, **changed, "key": f"epochs_1{run['seed']}", "history": run["history"][:1]}
            half["end"] = half["best"] = run["history"][0]
            half["steps"] = half["end"]["step"]
            (folder / f"epochs_1-{run['seed']}.json").write_text(json.dumps(half))


def shown(folder):
    return front.early_stopping(loading.load(folder)[0])


def test_the_few_runs_of_a_real_model_stand_below_and_say_so(tmp_path):
    made_up.write(tmp_path / "dolly")
    real_model(tmp_path / "smollm2")
    first, second = shown(tmp_path).split("\n\n")
    assert "over the 3 seeds" in first
    assert "<b>Undecided.</b> No plain training of another length" in first, "which could be as good"
    assert "135 M parameters" in second and "1 seed. One seed so far" in second
    assert "<b>Undecided.</b>" in second and "one seed</b></li><li>plain training, at the best checkpoint: " in second
    assert "Plain training of other lengths was not run there" in second


def test_a_row_of_few_seeds_does_not_cut_the_others_down(tmp_path):
    real_model(tmp_path / "smollm2", seeds=4, shorter=(0,))
    rows, seeds = front.drawn_rows(loading.load(tmp_path)[0][0])
    assert [row.label for row in rows] == ["none", "neft_uniform"] and seeds == {0, 1, 2, 3}


def test_lines_are_named_by_their_epochs_and_the_best_length_answers(tmp_path):
    real_model(tmp_path / "smollm2", seeds=4, shorter=range(4))
    experiment = loading.load(tmp_path)[0][0]
    text = shown(tmp_path)
    assert "plain training, 2 epochs" in text and re.search(r"plain training, 1 epoch\b", text)
    assert "the best plain run of any length (1 epoch): <b>" in front.early_verdict(experiment)
    assert "<b>Yes" in text, "one epoch of plain training is as good"


@pytest.mark.parametrize(
    ("share", "plain", "noise", "answer"),
    [
        (0.5, -0.2, -0.08, "Yes, and stopping earlier does more"),
        (0.5, -0.08, -0.08, "Yes"),
        (2.0, -0.2, -0.08, "No: training longer does more"),
        (2.0, -0.08, -0.08, "No: training longer does as much"),
        (0.5, -0.2, 0.0, "Stopping earlier does more"),
        (0.5, -0.2, 0.1, "It does less here"),
        (0.5, 0.2, 0.0, "It changes nothing here"),
        (0.5, 0.2, 0.1, "It does less here"),
        (0.5, 0.2, -0.08, "No"),
        (2.0, -0.05, -0.08, "No"),
    ],
)
def test_the_answer_is_early_stopping_only_if_a_shorter_run_is_the_best(tmp_path, share, plain, noise, answer):
    folder = made_up.write(tmp_path / "r", 8, {"none": (0, 0, 0, 0), "neft_uniform 5": (noise, noise, 0, 0)})
    for seed in range(8):
        run = made_up.record("none", seed, (plain, plain, 0, 0))
        run |= {"share": share, "steps": int(10 * share), "row": "length"}
        results.write(folder / f"length-{seed}.json", RunRecord.from_dict(run))
    assert f"<b>{answer}.</b>" in front.early_verdict(loading.load(tmp_path)[0][0])
