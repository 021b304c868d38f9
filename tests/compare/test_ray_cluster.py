"""`neft-zoo compare --ray` on a real cluster of two nodes on this machine, one of which dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_compare import tiny  # noqa: F401 - a fixture

from neft_zoo.cli.main import main

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
# Ray's workers are as nice as can be unless told otherwise, and starve next to other tests.
QUIET = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "RAY_worker_niceness": "0"})


def family(pid):
    """Return a process and all its descendants."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:
                pass  # it has just ended
    return found


def kill(process):
    for pid in reversed(family(process.pid)):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait()


def names(process):
    """Return the command lines of a node's processes."""
    told = []
    for pid in family(process.pid):
        try:
            told.append(Path(f"/proc/{pid}/cmdline").read_text())
        except OSError:
            pass
    return told


@pytest.fixture
def cluster(tmp_path):
    """Return the address of a cluster and the process of its second node."""
    pytest.importorskip("ray", reason="ray is not installed (neft-zoo[ray])")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = [*RAY, "start", "--block", "--num-cpus=1", "--disable-usage-stats"]
    head = [*start, "--head", f"--port={port}", "--include-dashboard=false"]
    nodes = [subprocess.Popen(head, **QUIET)]
    try:
        address = f"127.0.0.1:{port}"
        wait_for(lambda: connects(port), nodes[0])
        nodes.append(subprocess.Popen([*start, f"--address={address}"], **QUIET))
        wait_for(lambda: nodes_of(address) == 2, nodes[1])
        yield address, nodes[1]
    finally:
        for node in nodes:
            kill(node)


def nodes_of(address):
    """Return how many nodes of a cluster can be given work."""
    told = subprocess.run([*RAY, "status", f"--address={address}"], capture_output=True, text=True).stdout
    return told.partition("Active:")[2].partition("Pending:")[0].count("node_")


def connects(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(happens, process, told=os.devnull, seconds=600):
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline and process.poll() is None, Path(told).read_text()
        time.sleep(0.1)


@pytest.mark.slow
def test_the_grid_survives_a_dead_node(tiny, tmp_path, cluster):  # noqa: F811
    address, node = cluster
    argv = ["compare", str(tiny), "--strategies", "neft_uniform", "--set", "neft_uniform.alpha=1,2,500"]
    remote = [*argv, "--seeds", "2", "--output", str(tmp_path / "remote"), "--ray", address]
    with open(tmp_path / "err.txt", "w") as err:
        driver = subprocess.Popen([sys.executable, "-m", "neft_zoo", *remote], stderr=err)
        wait_for(lambda: any("_work" in name for name in names(node)), driver, tmp_path / "err.txt")
        time.sleep(1)
        assert driver.poll() is None and any("_work" in name for name in names(node))
        kill(node)
        assert driver.wait(1800) == 0, (tmp_path / "err.txt").read_text()
    paths = sorted((tmp_path / "remote" / "tiny").iterdir())
    runs = [json.loads(path.read_text()) for path in paths]
    assert len(runs) == 8 and {run["status"] for run in runs} == {"ok"}, [run.get("error") for run in runs]
    assert len({run["key"] for run in runs}) == 8
    finished = [line for line in (tmp_path / "err.txt").read_text().splitlines() if ", seed " in line]
    assert len(finished) == 8 and len(set(line.split(":")[0] for line in finished)) == 8, "told of once each"
    told = [line for line in (tmp_path / "err.txt").read_text().splitlines() if "louder" in line]
    assert [line.partition(": noise")[0] for line in sorted(told)] == [
        "warning: neft_uniform alpha=2",
        "warning: neft_uniform alpha=500",
    ]
    # The same numbers as on this machine, with as many threads.
    assert main([*argv, "--seeds", "1", "--jobs", "2", "--output", str(tmp_path / "local")]) == 0
    for path in (tmp_path / "local" / "tiny").glob("*.json"):
        local, far = (json.loads((tmp_path / where / "tiny" / path.name).read_text()) for where in ("local", "remote"))
        assert local["history"] == far["history"] and local["key"] == far["key"]


def test_no_cluster_is_one_sentence(tmp_path, capsys):
    pytest.importorskip("ray", reason="ray is not installed (neft-zoo[ray])")
    for address, more, message in (
        ("127.0.0.1:1", [], "ray must be the address of a running cluster, got '127.0.0.1:1'"),
        ("nonsense", [], "ray must be the address of a running cluster, got 'nonsense'"),
        ("auto", ["--jobs", "2"], "jobs must not be given with --ray"),
    ):
        argv = ["compare", "quickstart", "--output", str(tmp_path / "out"), "--ray", address, *more]
        assert main(argv) == 2
        error = capsys.readouterr().err
        assert message in error and len(error.splitlines()) == 1 and not (tmp_path / "out").exists()
