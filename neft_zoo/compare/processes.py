"""Starting processes for runs: forked from a process that has imported everything, except on a GPU.

A process that has initialized CUDA cannot be forked, and importing may initialize it. This module imports little, so
that the forking process can start while this one is still importing.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext, SpawnContext

FORKS = "forkserver" in multiprocessing.get_all_start_methods()


def context(cpu: bool) -> ForkServerContext | SpawnContext:
    """Return the multiprocessing context for runs on a CPU or a GPU."""
    if not cpu or not FORKS:
        return multiprocessing.get_context("spawn")
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(["neft_zoo.compare.worker"])
    return forking


def get_ready(cpu: bool) -> None:
    """Make the process from which runs are forked start importing."""
    if context(cpu).get_start_method() == "forkserver":
        from multiprocessing import forkserver

        forkserver.ensure_running()
