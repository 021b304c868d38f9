"""`neft-zoo tune`: searches on a real runner and database."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import made_up
import pytest
from test_compare import tiny  # noqa: F401 - a fixture

from neft_zoo import NoiseError, make
from neft_zoo.cli.main import main
from neft_zoo.compare.records import RunRecord
from neft_zoo.compare.search_space import Dimension, make_space, read_dimension

optuna = pytest.importorskip("optuna")
searching = pytest.importorskip("neft_zoo.compare.search")
best = pytest.importorskip("neft_zoo.compare.best")
SEARCH = ["--search", "alpha=1:30:log", "--search", "learning_rate=0.001,0.003"]


def trials_of(folder):
    return optuna.load_study(study_name="neft-zoo tiny", storage=f"sqlite:///{folder / 'tiny' / 'study.db'}").trials


def tune(tiny, folder, *argv):  # noqa: F811
    return main(["tune", str(tiny), "--output", str(folder), *argv])


def test_searches_resumes_and_compares_the_best(tiny, tmp_path, capsys):  # noqa: F811
    assert tune(tiny, tmp_path, *SEARCH, "--trials", "2", "--seeds", "0") == 0
    first = [trial.params for trial in trials_of(tmp_path)]
    assert len(first) == 2 and all(1 <= params["alpha"] <= 30 for params in first)
    capsys.readouterr()
    assert tune(tiny, tmp_path, *SEARCH, "--trials", "3", "--seeds", "2") == 0
    trials, out = trials_of(tmp_path), capsys.readouterr()
    assert [trial.params for trial in trials[:2]] == first and len(trials) == 3
    assert {line.split()[1].rstrip(":,") for line in out.err.splitlines() if line.startswith("trial ")} <= {
        "2:",
        "2",
    }, "what is missing"
    best = min((trial for trial in trials if trial.value is not None), key=lambda trial: trial.value)
    report = json.loads((tmp_path / "tiny" / "best.json").read_text())
    assert report["trial"] == best.number and report["values"]["alpha"] == best.params["alpha"]
    assert report["options"] == {"learning_rate": json.loads(best.params["learning_rate"])}
    record = json.loads(next((tmp_path / "tiny" / f"trial-{best.number:04}").glob("*.json")).read_text())
    assert record["end"]["test_loss"] == best.value and record["noise"]["alpha"] == best.params["alpha"]
    runs = [json.loads(path.read_text()) for path in (tmp_path / "tiny").glob("best-*/*.json")]
    assert sorted((run["noise"]["name"], run["share"], run["seed"]) for run in runs) == sorted(
        (*row, seed)
        for row in (("none", 0.25), ("none", 0.5), ("none", 1.0), ("neft_uniform", 1.0))
        for seed in (1, 2)
    )
    assert {run["overrides"]["learning_rate"] for run in runs} == {report["options"]["learning_rate"]}
    ends = {(run["noise"]["name"], run["seed"]): run["end"]["test_loss"] for run in runs if run["share"] == 1}
    gaps = [ends["neft_uniform", seed] - ends["none", seed] for seed in (1, 2)]
    assert report["comparison"]["test_loss end"]["difference"] == pytest.approx(sum(gaps) / 2)
    assert report["comparison"]["seeds"] == [1, 2]
    assert "Against none, test_loss end" in out.out and "optimistic" in out.out
    shorter = report["comparison"]["the best plain run"]
    assert f"Against the best plain run of any length, {shorter['baseline']}: " in out.out
    assert shorter["baseline"] in ("none", "none, 1/2 of the steps", "none, 1/4 of the steps")
    assert tune(tiny, tmp_path, "--search", "alpha=1:20:log", "--trials", "3") == 2, "another search"
    assert "storage must hold a study of the same recipe" in capsys.readouterr().err


def test_a_failed_trial_is_recorded(tiny, tmp_path, capsys):  # noqa: F811
    noise = ["--noise", "{name: lat, steps: 1, layers: [99]}", "--search", "eps=1:2"]
    assert tune(tiny, tmp_path, *noise, "--trials", "1", "--seeds", "1") == 2
    assert "at least one trial must end well" in capsys.readouterr().err
    (trial,) = trials_of(tmp_path)
    assert trial.state.name == "FAIL" and "99" in trial.user_attrs["error"]


def test_a_trial_that_others_have_given_up_is_left_to_them(tiny, tmp_path, monkeypatch):  # noqa: F811
    follow, given_up = searching.follow, []

    def slept(trial, task, warned):
        if not given_up:
            given_up.append(trial.number)
            trial.storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.FAIL)
        return follow(trial, task, warned)

    monkeypatch.setattr(searching, "follow", slept)
    assert tune(tiny, tmp_path, *SEARCH[:2], "--trials", "1", "--seeds", "0") == 0
    assert [trial.state.name for trial in trials_of(tmp_path)] == ["FAIL", "COMPLETE"]


@pytest.mark.slow
def test_two_processes_share_a_study_and_a_killed_one_is_made_up_for(tiny, tmp_path, monkeypatch):  # noqa: F811
    argv = [sys.executable, "-m", "neft_zoo", "tune", str(tiny), "--output", str(tmp_path)]
    argv += ["--search", "alpha=1:30:log", "--trials", "6", "--seeds", "0"]
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = subprocess.Popen(argv, **quiet)
    deadline = time.monotonic() + 900
    while len(list((tmp_path / "tiny").glob("trial-*"))) < 2:
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    # Both that go on take a trial for lost sooner, but not so soon that one of theirs on a busy machine is.
    monkeypatch.setattr("neft_zoo.compare.study.HEARTBEAT", 10)
    time.sleep(21)
    sooner = "import sys; from neft_zoo.cli import main as cli; from neft_zoo.compare import study; "
    sooner += "study.HEARTBEAT = 10; sys.exit(cli.main())"
    second = subprocess.Popen([sys.executable, "-c", sooner, *argv[3:]], **quiet)
    assert tune(tiny, tmp_path, *argv[7:]) == 0
    assert second.wait(900) == 0
    trials = trials_of(tmp_path)
    ended = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
    lost = [trial for trial in trials if trial.state.name == "FAIL"]
    assert 6 <= len(ended) <= 7 and len(lost) == 1 and not lost[0].user_attrs.get("error")
    assert any(trial.params == lost[0].params for trial in ended), "the killed trial is tried again"


@pytest.mark.parametrize(
    ("failed", "said"), [((3,), "Seeds [1, 2], which"), ((1, 2, 3), "No seed of [1, 2, 3] can be compared")]
)
def test_the_comparison_of_the_best_says_which_runs_failed(failed, said):
    runs = {}
    for seed in (1, 2, 3):
        ended = seed not in failed
        made = [("none", (0, 0, 0, 0), {}), ("none", (-0.1, 0, 0, 0), {"row": "half", "share": 0.5, "steps": 5})]
        made += [("neft_uniform 5", (-0.3, -0.3, 0, 0) if ended else None, {})]
        for place, (name, effect, changes) in enumerate(made):
            run = made_up.record(name, seed, effect) | changes
            runs[Path(f"{place}{seed}.json")] = RunRecord.from_dict(run)
    comparison = {"folder": "x", "seeds": [1, 2, 3], **best._compared(runs)}
    text = best.describe(
        dict(values={"alpha": 5.0}, noise={}, options={}, trial=0, test_loss=1.9, trials={}, comparison=comparison)
    )
    assert said in text and text.count(" (1 of 3 seeds failed).") == (3 if len(failed) == 1 else 0)


def test_reads_dimensions():
    uniform = make("neft_uniform")
    assert read_dimension("alpha=1:30:log", uniform) == Dimension("alpha", 1.0, 30.0, log=True)
    assert read_dimension("warmup_steps=0:20", uniform).whole is False
    assert read_dimension("gradient_accumulation_steps=1:4", uniform) == Dimension(
        "gradient_accumulation_steps", 1, 4, whole=True
    )
    assert read_dimension("length=document,padded", uniform).choices == ("document", "padded")
    (schedule,) = read_dimension("alpha={schedule: linear, start: 10, end: 0}", uniform).choices
    assert schedule["start"] == 10
    assert make_space([], make("neft_uniform", alpha=10)) == [Dimension("alpha", 2.0, 50.0, log=True)]
    with pytest.raises(NoiseError, match="search must be given for r_drop"):
        make_space([], make("r_drop"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--search", "alhpa=1:30"], "got 'alhpa'; did you mean alpha?"),
        (["--search", "alpha=30:1"], "search must be NAME=LOW:HIGH"),
        (["--search", "alpha=1:30:lin"], "search must be NAME=LOW:HIGH"),
        (["--search", "alpha"], "search must be NAME=LOW:HIGH"),
        (["--search", "alpha=0:30:log"], "search on a log scale must begin above 0"),
        (["--search", "alpha=-1:30"], "alpha must be a finite number >= 0, got -1"),
        (["--search", "length=document,row"], "length must be one of"),
        (["--search", "alpha=1:2", "--search", "alpha=2:3"], "search must name everything once"),
        (["--search", "max_steps=1.5:3"], "search of max_steps must have whole numbers"),
        (["--search", "lr_scheduler_type=cosine,cosnie"], "cosnie"),
        (["--search", "seed=0:3"], "got 'seed'"),
        (["--search", "max_length=64,128"], "got 'max_length'"),
        (["--noise", "neft_scheduled"], "search must be given for neft_scheduled"),
        (["--trials", "0"], "trials must be a whole number >= 1, got 0"),
        (["--seeds", "-1"], "seeds must be a whole number >= 0, got -1"),
        (["--train_records", "0"], "train_records must be a whole number >= 1, got 0"),
    ],
)
def test_wrong_input_ends_before_a_run(tmp_path, capsys, argv, message):
    assert main(["tune", "quickstart", "--output", str(tmp_path / "out"), *argv]) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1] and error.count("error:") == 1 and not (tmp_path / "out").exists()


def test_a_storage_that_is_none(tmp_path, capsys):
    assert main(["tune", "quickstart", "--output", str(tmp_path), "--storage", "nosuch://x"]) == 2
    error = capsys.readouterr().err
    assert "storage must be a database that Optuna can use, got 'nosuch://x'" in error and error.count("error:") == 1
