"""What all benchmarks share: paired ratios, peak memory, the machine."""

import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import torch

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"


def seconds(run: Callable[[], Any]) -> float:
    """Return what one call takes."""
    if CUDA:
        torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def paired(baseline: Callable[[], Any], others: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return, per name, the ratios of its time to the baseline's in the same round; every other round is backwards."""
    order = [("", baseline), *others.items()]
    for _, run in order:
        run()  # the first call warms up
    found: dict[str, list[float]] = {name: [] for name in others}
    for _ in range(rounds):
        took = {name: seconds(run) for name, run in order}
        order.reverse()
        for name in others:
            found[name].append(took[name] / took[""])
    return found


def interval(ratios: Sequence[float], draws: int = 2000) -> tuple[float, float]:
    """Return the bootstrap's 95 % interval of the median."""
    generator = random.Random(0)
    medians = sorted(statistics.median(generator.choices(ratios, k=len(ratios))) for _ in range(draws))
    return medians[round(0.025 * draws)], medians[round(0.975 * draws) - 1]


def peak(run: Callable[[], Any]) -> int:
    """Return the bytes of tensors that a call had at most, beyond what was there before it."""
    run()
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    now = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def machine() -> dict[str, Any]:
    """Return what ratios depend on."""
    versions = {name: version(name) for name in ("neft-zoo", "torch", "transformers", "trl")}
    device = torch.cuda.get_device_name() if CUDA else platform.processor() or platform.machine()
    return {"device": device, "threads": torch.get_num_threads(), "versions": versions}


def table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows as a Markdown table; the first one is its head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for number, row in enumerate(rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if number == 0:
            print("| " + " | ".join("-" * width for width in widths) + " |")
