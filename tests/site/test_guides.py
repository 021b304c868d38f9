"""The programs in the guides, run as they stand: what they print is what the guides say."""

import re

import pytest
from made_up import DOCS

PROGRAM = re.compile(r"```python\n(.*?)```", re.DOTALL)
LOSS = re.compile(r"(?:before|after|\d): (\d\.\d+)")
# These train for epochs; a step shows that they run.
SHORTER = {
    'NoiseSFTConfig("runs/qlora")': 'NoiseSFTConfig("runs/qlora", max_steps=1, use_cpu=True, bf16=False)',
    '"runs/quickstart",': '"runs/quickstart", max_steps=1,',
}


def programs(guide):
    text = (DOCS / f"guides/{guide}.md").read_text(encoding="utf-8")
    found = [each for each in PROGRAM.findall(text) if "shipped(" in each]
    for long, short in SHORTER.items():
        found = [each.replace(long, short) for each in found]
    return found


def run(program, name):
    """Run a program and return its names."""
    names = {"__name__": name}
    exec(compile(program, name, "exec"), names)
    return names


def table(guide, head):
    """Return the numbers of the table below a head, a list per line."""
    text = (DOCS / f"guides/{guide}.md").read_text(encoding="utf-8").partition(head)[2]
    lines = text.strip().splitlines()[1:]
    return [[float(cell) for cell in line.strip("| ").split("|")] for line in lines[: lines.index("")]]


@pytest.mark.slow
def test_the_loop_prints_what_its_guide_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (program,) = programs("own-loop")
    run(program, "own_loop")
    said = (DOCS / "guides/own-loop.md").read_text(encoding="utf-8").partition("It prints:")[2]
    told, printed = ([*map(float, LOSS.findall(text))] for text in (said, capsys.readouterr().out))
    assert printed == pytest.approx(told, abs=0.02) and len(printed) == 5


@pytest.mark.slow
@pytest.mark.parametrize("guide", ["quickstart", "peft", "preference"])
def test_the_last_program_of_a_guide_runs(tmp_path, monkeypatch, guide):
    monkeypatch.chdir(tmp_path)
    *_, program = programs(guide)
    run(program, guide)


@pytest.mark.slow
def test_dpo_logs_what_its_guide_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logged = [
        each for each in run(programs("preference")[0], "dpo")["trainer"].state.log_history if "noise/rms" in each
    ]
    keys = ("step", "loss", "rewards/margins", "noise/rms", "noise/snr_db")
    said = table("preference", f"| {' | '.join(keys)} |")
    assert [[each[key] for key in keys] for each in logged] == [pytest.approx(line, abs=0.06) for line in said]
