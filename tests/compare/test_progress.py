"""How far a run is can be seen before it ends, with a terminal and without, and an interrupt says what is kept."""

import signal
import subprocess
import sys

import pytest
from selection import quick

from neft_zoo.cli.main import main
from neft_zoo.compare import progress


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
    assert main(["tune", str(tiny_recipe), "--trials", "1", "--seeds", "1", "--output", str(tmp_path)]) == 0
    said = capfd.readouterr().err
    begins, measured = said.index("neft-zoo: trial 0, alpha "), said.index("neft-zoo: trial 0, step 1 of 1: test loss")
    assert begins < measured < said.index("\ntrial 0, alpha ") < said.index("comparing the best with none: 2 runs")


# Where pytest itself runs in the background, SIGINT is ignored by it and all it starts.
MAIN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from neft_zoo.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


COMPARE = "compare {recipe} --seeds 3 --output {out}", "what is done is kept, and the same command goes on from there"
SFT = "sft {recipe} --output_dir {out}", "with --resume_from_checkpoint true the same command goes on"


@pytest.mark.parametrize(
    "command, kept",
    quick(
        [
            COMPARE,
            SFT,
            ("alpha {recipe} --no_plots --output {out}", "nothing is kept, and the same command starts again"),
        ],
        SFT,  # a killed comparison goes on in test_compare.py
    ),
)
def test_an_interrupted_command_says_what_is_kept(command, kept, tiny_recipe, tmp_path):
    argv = command.format(recipe=tiny_recipe, out=tmp_path / "out").split()
    process = subprocess.Popen([sys.executable, "-c", MAIN, *argv], stderr=subprocess.PIPE, text=True)
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith(("neft-zoo: reading data", "neft-zoo: loading")):
            process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert lines[-1].startswith(f"neft-zoo: interrupted; {kept}"), lines
    assert "Traceback" not in "".join(lines) and not list(tmp_path.rglob("*.lock"))
