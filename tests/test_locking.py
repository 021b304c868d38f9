"""One run at a time in a folder; a run that died holds nothing."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from neft_zoo.cli.main import main
from neft_zoo.errors import NoiseError
from neft_zoo.files import LOCK, locked

HOLD = """
import os, signal, sys, time
from pathlib import Path
from neft_zoo.files import LOCK, locked
signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest may run in the background
with locked("output", Path(sys.argv[1])):
    print("held", flush=True)
    if len(sys.argv) > 2 and os.fork() == 0:
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that writes to the folder `out`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_folder_is_held_and_let_go_and_nothing_is_left(tmp_path):
    folder = tmp_path / "runs" / "out"
    for _ in range(2):
        with locked("output", folder):
            assert [path.name for path in folder.iterdir()] == [LOCK]
        assert not folder.parent.exists(), "it was empty"
    with locked("output", folder):
        (folder / "result.json").write_text("{}")
    assert [path.name for path in folder.iterdir()] == ["result.json"]


def test_one_process_holds_it_twice_never(tmp_path):
    with locked("output", tmp_path), pytest.raises(NoiseError, match=f"process {os.getpid()} on .* is writing to"):
        with locked("output", tmp_path):
            pass


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_process_that_died_holds_nothing(holder, kill, tmp_path):
    with pytest.raises(NoiseError, match=f"process {holder.pid} on"), locked("output", tmp_path / "out"):
        pass
    holder.send_signal(kill)
    holder.wait()
    with locked("output", tmp_path / "out"):
        pass


def test_a_process_that_died_holds_nothing_through_its_children(tmp_path):
    argv = [sys.executable, "-c", HOLD, str(tmp_path / "out"), "with a child"]
    parent = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "held\n"
    child = int(parent.stdout.readline())
    with pytest.raises(NoiseError, match=f"process {parent.pid} on"), locked("output", tmp_path / "out"):
        pass
    parent.kill()
    parent.wait()
    try:
        with locked("output", tmp_path / "out"):
            os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


def test_the_first_process_of_a_run_holds_it_for_all(holder, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with locked("output_dir", tmp_path / "out"):
        pass


COMMANDS = [
    "sft quickstart --output_dir {out}",
    "compare quickstart --seeds 1 --output {parent}",
    "alpha quickstart --no_plots --output {out}",
    "evaluate {model} --config quickstart --parts losses --no_plots --output {out}",
    "judge {answers} {answers} --judge builtins:len --output {out}",
]


@pytest.mark.parametrize("argv", COMMANDS)
def test_a_second_run_is_refused_before_it_loads_anything(argv, tmp_path, capsys, llama, tokenizer):
    (tmp_path / "answers.json").write_text('[{"instruction": "Hi", "output": "a", "generator": "m"}]')
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    folder = tmp_path / "runs" / "quickstart"
    names = {"out": folder, "parent": folder.parent, "model": tmp_path / "model", "answers": tmp_path / "answers.json"}
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        assert main(argv.format(**names).split()) == 2
        said = capsys.readouterr().err
        assert f"process {process.pid} on" in said and said.count("neft-zoo: error") == 1
        assert [path.name for path in folder.iterdir()] == [LOCK], "the first run's folder is as it was"
    finally:
        process.kill()
        process.wait()


def _race(folder, held, collided, until):
    while time.monotonic() < until:
        try:
            with locked("output", folder):
                with held.get_lock():
                    held.value += 1
                    collided.value |= held.value > 1
                time.sleep(0.001)
                with held.get_lock():
                    held.value -= 1
        except NoiseError:
            pass


def test_no_two_processes_ever_hold_it_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    held, collided = context.Value("i", 0), context.Value("b", False)
    arguments = (tmp_path / "out", held, collided, time.monotonic() + 2)
    processes = [context.Process(target=_race, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert not collided.value and [process.exitcode for process in processes] == [0] * 4
