"""`neft-zoo compare --ray`: runs on a Ray cluster, which does all scheduling and retries."""

from __future__ import annotations

import logging
import socket
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from neft_zoo.compare import results, runner
from neft_zoo.compare.measurement import Warned
from neft_zoo.compare.records import RunRecord
from neft_zoo.compare.worker import Task
from neft_zoo.config import recipe
from neft_zoo.errors import NoiseError, one_line, require

try:
    import ray
    from ray.exceptions import RayError
except ImportError:
    require("ray", "--ray", "ray")
    raise

PATIENCE = 10  # seconds to wait for the cluster's response
RETRIES = 5  # of a run whose node or worker is lost; a run that fails by itself is not retried


def runs_on(address: str) -> Callable[[list[Task], int, runner.Finished, runner.Stepped], None]:
    """Connect to a cluster and return its replacement for `runner.run`.

    Args:
        address: `auto`, `host:port` or `ray://host:port`.

    Raises:
        NoiseError: if there is no cluster.
    """
    try:
        _probe(address)  # Ray itself would retry for many minutes
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        cause = one_line(error, 200)
        raise NoiseError(f"ray must be the address of a running cluster, got {address!r}: {cause}.") from None
    return _run


def _probe(address: str) -> None:
    """Raise an `OSError` if nothing listens at `host:port`; other addresses are left to Ray."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()


def _run(todo: list[Task], jobs: int, finished: runner.Finished, stepped: runner.Stepped = lambda live: None) -> None:
    """Execute runs, as many at a time as the cluster has room for, write each record and call `finished`.

    The steps of a run are not reported before it ends.
    """
    gpu = ray.cluster_resources().get("GPU", 0) >= 1
    # Ray declares no type for a function with options.
    remote = ray.remote(num_cpus=1, num_gpus=int(gpu), max_retries=RETRIES)(_work)  # pyright: ignore
    waiting = {remote.remote(_portable(task, gpu)): task for task in todo}
    try:
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            task = waiting.pop(done)
            try:
                record, warned = ray.get(done)
            except RayError as error:
                # The initial status of a record is failed.
                record, warned = replace(task.record, error=f"{type(error).__name__}: {one_line(error)}"), []
            results.write(task.path, record)
            finished(task, record, warned)
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)
        ray.shutdown()


def _portable(task: Task, gpu: bool) -> Task:
    """Return a task for another machine, where the shipped files are in that machine's package."""
    shipped = str(recipe.folder())
    config = {
        key: value.replace(shipped, recipe.PLACEHOLDER) if isinstance(value, str) else value
        for key, value in task.config.items()
    }
    return replace(task, config=config, path=Path(task.path.name), threads=0 if gpu else 1)


def _work(task: Task) -> tuple[RunRecord, list[Warned]]:
    """Execute a run on a node, in its own process and folder, and return its record and warnings."""
    here, there = results.versions(), task.record.versions
    if here != there:
        differing = ", ".join(f"{name} {here[name]} and {there[name]}" for name in here if here[name] != there[name])
        return replace(task.record, error=f"all nodes must have the same versions, got {differing}."), []
    with tempfile.TemporaryDirectory(prefix="neft-zoo-") as folder:
        record = replace(task.record, **results.surroundings(), node=ray.util.get_node_ip_address())
        live = runner.start(replace(task, path=Path(folder) / task.path.name, record=record))
        try:
            return runner.finish(live), live.warned
        finally:
            if live.process.is_alive():
                runner.stop(live)
