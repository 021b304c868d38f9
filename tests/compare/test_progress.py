"""How far a run is can be seen before it ends, with a terminal and without, and an interrupt says what is kept."""

import json
import os
import signal

import pytest
from warm import started_command

from neft_zoo.cli.main import main
from neft_zoo.compare import progress
from neft_zoo.errors import DataWarning


def test_steps_inside_a_run_are_said_where_there_is_no_terminal(tiny_recipe, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    assert main(["compare", str(tiny_recipe), "--seeds", "1", "--output", str(tmp_path)]) == 0
    said = capfd.readouterr().err
    assert "neft-zoo: reading data\n" in said
    assert 0 < said.index("neft_uniform, seed 0: step 0 of 1") < said.index("neft_uniform, seed 0: test loss")


def test_a_terminal_shows_a_bar_a_run(tiny_recipe, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    argv = ["compare", str(tiny_recipe), "--strategies", "none", "--seeds", "1", "--output", str(tmp_path)]
    assert main(argv) == 0
    said = capfd.readouterr().err
    assert "loading" in said and "none, seed 0" in said.partition("test loss")[0]


def test_a_trial_is_followed_before_it_ends(tiny_recipe, tmp_path, capfd):
    argv = ["tune", str(tiny_recipe), "--trials", "1", "--seeds", "1", "--search", "alpha=5000:6000"]
    assert main([*argv, "--output", str(tmp_path)]) == 0
    said = capfd.readouterr().err
    assert said.count("louder than the embeddings") == 1, "by the trial and by the best row's run"
    begins, measured = said.index("neft-zoo: trial 0, alpha "), said.index("neft-zoo: trial 0, step 1 of 1: test loss")
    assert begins < measured < said.index("\ntrial 0, alpha ") < said.index("comparing the best with none: 2 runs")


def test_what_runs_warn_of_is_said_once_a_row(tiny_recipe, tmp_path, capfd):
    options = json.loads(tiny_recipe.read_text())
    (tmp_path / "data").mkdir()
    for split, count in (("train", 8), ("test", 4)):
        lines = [{"prompt": "word " * 99 * (i % 2), "completion": f"The number {i}.", "id": "a"} for i in range(count)]
        (tmp_path / "data" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    options |= {"dataset_name": str(tmp_path / "data"), "noise": {"name": "neft_uniform", "alpha": 5000}}
    (tmp_path / "loud.yaml").write_text(json.dumps(options))
    argv = ["compare", str(tmp_path / "loud.yaml"), "--seeds", "2", "--jobs", "2", "--output", str(tmp_path / "out")]
    with pytest.warns(DataWarning, match="not used: id") as caught:
        assert main([*argv, "--set", "neft_uniform.alpha=5000,6000"]) == 0
    assert len([each for each in caught if each.category is DataWarning]) == 1
    said = capfd.readouterr().err
    assert said.count("\nwarning: 4 of 8 records have no graded token within max_length 48: they are dropped.") == 1
    for alpha in (5000, 6000):
        assert said.count(f"\nwarning: neft_uniform alpha={alpha}: noise/snr_db is -") == 1
    assert "not used" not in said, "in the processes of the runs"


def test_a_run_that_ends_while_the_rate_rises_is_warned_of(tiny_recipe, tmp_path, capfd):
    options = json.loads(tiny_recipe.read_text()) | {"max_steps": 2, "warmup_steps": 1}
    (tmp_path / "rising.yaml").write_text(json.dumps(options))
    argv = ["compare", str(tmp_path / "rising.yaml"), "--strategies", "none", "--lengths", "1/2", "--seeds", "1"]
    assert main([*argv, "--output", str(tmp_path / "out")]) == 0
    warned = [line for line in capfd.readouterr().err.splitlines() if "warmup_steps" in line]
    row = "none, 1/2 of the steps"
    assert warned == [f"warning: {row}: training ends at step 1 and warmup_steps at 1: the learning rate only rises."]


def test_an_error_of_every_run_is_said_once_and_ends_the_command(tiny_recipe, tmp_path, capfd):
    options = json.loads(tiny_recipe.read_text()) | {"max_length": 1}
    (tmp_path / "short.yaml").write_text(json.dumps(options))
    assert main(["compare", str(tmp_path / "short.yaml"), "--seeds", "2", "--output", str(tmp_path / "out")]) == 2
    said = capfd.readouterr().err
    assert "none, seed 1: failed as none, seed 0 did; " in said
    assert "neft-zoo: error: at least one run must succeed, got 4 that failed, the first one by: " in said


@pytest.mark.parametrize(
    "command, kept",
    [
        ("compare {recipe} --seeds 3 --output {out}", "what is done is kept, and the same command goes on from there"),
        ("sft {recipe} --output_dir {out}", "with --resume_from_checkpoint true the same command goes on"),
        ("alpha {recipe} --no_plots --output {out}", "nothing is kept, and the same command starts again"),
    ],
)
def test_an_interrupted_command_says_what_is_kept(command, kept, tiny_recipe, tmp_path):
    argv = command.format(recipe=tiny_recipe, out=tmp_path / "out").split()
    (process, said), lines = started_command(argv), []
    with said:
        for line in said:
            lines.append(line)
            if line.startswith(("neft-zoo: reading data", "neft-zoo: loading")):
                os.kill(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == 130
    assert lines[-1].startswith(f"neft-zoo: interrupted; {kept}"), lines
    assert "Traceback" not in "".join(lines) and not list(tmp_path.rglob("*.lock"))
