"""How runs get processes of their own: forked off one that has imported everything, but not next to a GPU's driver.

A process that has touched CUDA cannot be forked, and importing may touch it. Light to import, as that process is best
started while this one is still importing.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext, SpawnContext

FORKS = "forkserver" in multiprocessing.get_all_start_methods()


def context(cpu: bool) -> ForkServerContext | SpawnContext:
    """Return the context that starts processes for runs on a CPU, or a GPU."""
    if not cpu or not FORKS:
        return multiprocessing.get_context("spawn")
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(["neft_zoo.compare.worker"])
    return forking


def get_ready(cpu: bool) -> None:
    """Let the process that runs are forked off start importing now."""
    if context(cpu).get_start_method() == "forkserver":
        from multiprocessing import forkserver

        forkserver.ensure_running()
