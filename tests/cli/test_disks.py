"""Disks that are full or read-only, and files that are there: one sentence, nothing half-written, nothing lost."""

import json
import sys
from pathlib import Path

import on_disk
import pytest
from selection import quick
from warm import started

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


def answers(folder):
    for name in ("answers", "others"):
        records = [{"instruction": f"Question {i}", "output": name[0] * 400, "generator": "m"} for i in range(12)]
        (folder / f"{name}.json").write_text(json.dumps(records))
    (folder / "judging.py").write_text(
        "class same:\n    def judge(self, prompts, completions, shuffle_order):\n        return [0] * len(prompts)\n"
    )
    return folder / "answers.json"


@pytest.mark.skipif(sys.platform != "linux", reason="mounts of its own")
def test_an_output_that_cannot_be_written_is_one_sentence(tiny_recipe, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    results = ROOT / "docs" / "results" / "dolly_packed"
    places = dict(recipe=tiny_recipe, model=tiny_recipe.parent / "model", answers=answers(tmp_path), results=results)
    places["others"] = tmp_path / "others.json"
    commands = [command.format(disk=disk, **places) for command in COMMANDS.values()]
    process = started(on_disk.main, disk, commands, tmp_path / "did.json", COLUMNS="200")
    process.join()
    if process.exitcode == on_disk.CANNOT_MOUNT:
        pytest.skip("no file system can be mounted here")
    assert process.exitcode == 0
    for state, results in json.loads((tmp_path / "did.json").read_text()).items():
        for name, result in zip(COMMANDS, results, strict=True):
            check(name, state, result)


def check(name, state, result):
    """Check what a command did: one sentence, no partial file, and what was computed is printed."""
    assert "Traceback" not in result["stderr"], (name, state, result["stderr"])
    # What generate has answered is kept, and the same command goes on from there.
    partial = [path for path in result["left"] if "partial" in path and name != "generate"]
    assert not partial and not any(path.endswith((".trial", ".lock")) for path in result["left"]), (
        name,
        state,
        result,
    )
    errors = [line for line in result["stderr"].splitlines() if line.startswith("neft-zoo: error: ")]
    if state == "nearly full" and name not in ("sft", "tune", "compare"):
        if result["status"] == 0:
            return  # what it wrote is small enough
        printed = name in ("page", "html", "report", "generate", "recipes") or result["stdout"].strip()
        assert printed, f"{name}: what was computed is printed"
    assert result["status"] in (1, 2) and len(errors) == 1, (name, state, result["stderr"])
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


@pytest.mark.parametrize("name", quick(EARLIER, *(name for name in EARLIER if name != "html")))
def test_a_file_that_is_there_is_written_over_aloud_or_not_at_all(name, tiny_recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    paths = [tmp_path / path for path in EARLIER[name]]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    results = ROOT / "docs" / "results" / "dolly_packed"
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
