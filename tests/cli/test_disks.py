"""Disks that are full or read-only, and files that are there: one sentence, nothing half-written, nothing lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from neft_zoo.cli.main import main

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "sft": "sft {recipe} --output_dir {disk}/out",
    "compare": "compare {recipe} --strategies neft_uniform --seeds 1 --output {disk}/compare",
    "tune": "tune {recipe} --trials 1 --seeds 1 --output {disk}/tune",
    "alpha": "alpha {recipe} --steps 1 --records 4 --points 3 --output {disk}/alpha",
    "evaluate": "evaluate {model} --config {recipe} --parts losses --output {disk}/evaluation",
    "generate": "generate {model} --config {recipe} --max_new_tokens 2 --output {disk}/outputs.json",
    "judge": "judge {answers} {answers} --judge judging:same --output {disk}/judged",
    "page": "judge {answers} {others} --human {disk}/rate.html",
    "report": "report {results} --output {disk}/report.md",
    "html": "report {results} --format html --output {disk}/report.html",
    "doctor": "doctor {recipe} --json {disk}/doctor.json",
    "recipes": "recipes cp quickstart {disk}/copy.yaml",
}
# A file system of its own for this process and its children: mounted, filled or closed, and gone with them.
INSIDE = """
mount -t tmpfs -o size=256k tmpfs {disk} || exit 77
{prepare}
{python} -m neft_zoo {command}
status=$?
find {disk} -type f ! -name filler 1>&2
exit $status
"""
PREPARE = {
    "full": "dd if=/dev/zero of={disk}/filler bs=1k count=300 2>/dev/null; true",
    "nearly full": "dd if=/dev/zero of={disk}/filler bs=1k count=248 2>/dev/null; true",
    "read-only": "mount -o remount,ro {disk}",
}


def answers(folder):
    for name in ("answers", "others"):
        records = [{"instruction": f"Question {i}", "output": name[0] * 400, "generator": "m"} for i in range(12)]
        (folder / f"{name}.json").write_text(json.dumps(records))
    (folder / "judging.py").write_text(
        "class same:\n    def judge(self, prompts, completions, shuffle_order):\n        return [0] * len(prompts)\n"
    )
    return folder / "answers.json"


@pytest.mark.skipif(sys.platform != "linux", reason="unshare")
@pytest.mark.parametrize("state", PREPARE)
@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_that_cannot_be_written_is_one_sentence(name, state, tiny_recipe, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    results = ROOT / "docs" / "results" / "gsm8k"
    places = dict(recipe=tiny_recipe, model=tiny_recipe.parent / "model", answers=answers(tmp_path), results=results)
    places["others"] = tmp_path / "others.json"
    command = COMMANDS[name].format(disk=disk, **places)
    script = INSIDE.format(disk=disk, prepare=PREPARE[state].format(disk=disk), python=sys.executable, command=command)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "COLUMNS": "200"}
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no file system can be mounted here")
    assert "Traceback" not in done.stderr, done.stderr
    left = [line for line in done.stderr.splitlines() if line.startswith(str(disk))]
    # What generate has answered is kept, and the same command goes on from there.
    assert not [
        path
        for path in left
        if ("partial" in path and name != "generate") or path.endswith(".trial") or path.endswith(".lock")
    ], left
    errors = [line for line in done.stderr.splitlines() if line.startswith("neft-zoo: error: ")]
    if state == "nearly full" and name not in ("sft", "tune", "compare"):
        if done.returncode == 0:
            return  # what it wrote is small enough
        assert name in ("page", "html", "report", "generate", "recipes") or done.stdout.strip(), (
            "what was computed is printed"
        )
    assert done.returncode in (1, 2) and len(errors) == 1, done.stderr
    assert "must be a f" in errors[0] or "No space left" in errors[0] or "storage must be" in errors[0], errors


# What each command writes; compare and tune go on from what is there.
EARLIER = {
    "sft": ["out/model.safetensors"],
    "alpha": ["alpha/alpha.json", "alpha/alpha.png"],
    "evaluate": ["evaluation/evaluation.json"],
    "generate": ["outputs.json"],
    "judge": ["judged/judged.json", "judged/annotations.json"],
    "page": ["rate.html"],
    "report": ["report.md"],
    "html": ["report.html"],
    "doctor": ["doctor.json"],
    "recipes": ["copy.yaml"],
}
KEPT = ("generate", "recipes")  # edited by hand, or an hour's work of a GPU


def test_every_command_that_writes_is_asked_about_earlier_files():
    assert EARLIER.keys() | {"compare", "tune"} == COMMANDS.keys()


@pytest.mark.parametrize("name", EARLIER)
def test_a_file_that_is_there_is_written_over_aloud_or_not_at_all(name, tiny_recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    paths = [tmp_path / path for path in EARLIER[name]]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    results = ROOT / "docs" / "results" / "gsm8k"
    places = dict(recipe=tiny_recipe, model=tiny_recipe.parent / "model", answers=answers(tmp_path), results=results)
    command = COMMANDS[name].format(disk=tmp_path, others=tmp_path / "others.json", **places)
    status = main(command.split())
    error, texts = capsys.readouterr().err, [path.read_bytes() for path in paths]
    if name in KEPT:
        assert status == 2 and f"must not exist yet, got {paths[0]}" in error and texts == [b"mine"]
        return
    assert status == 0, error
    assert b"mine" not in texts
    said = next(line for line in error.splitlines() if line.endswith("written over") or "written over;" in line)
    assert all(path.name in said for path in paths) or name == "sft"
    assert error.index(said) < error.find("loading data and model") or "loading" not in error, "said before the work"
