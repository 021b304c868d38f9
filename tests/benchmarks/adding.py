"""Time and peak memory of adding noise to embeddings, as ratios to transformers' hook in the same run.

python tests/benchmarks/adding.py [--entries neft_uniform,hype] [--shape 4,512,4096] [--rounds 15]
python tests/benchmarks/adding.py --growth growth.json      # neft_uniform over lengths and widths

The hook is `neftune_post_forward_hook`. On our side the batch is read and the tap of a model adds the noise; what an
objective does with further passes is not counted.
"""

import argparse
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from ratios import DEVICE, interval, machine, paired, peak, seconds, table
from torch import Tensor, nn
from transformers.integrations.neftune import neftune_post_forward_hook

from neft_zoo import make, names
from neft_zoo.noise.additive import AtLayers, TokenEdit
from neft_zoo.noise.batch import Batch
from neft_zoo.noise.data_dependent import Setup, Unprepared
from neft_zoo.passes.hooks import ModelHooks

VOCABULARY = 1000
COPY = "(a copy)"  # the least that adding something can take
LENGTHS = [2**i for i in range(7, 16)]
WIDTHS = [2**i for i in range(6, 14)]


class Ready(nn.Module):
    """A model whose embeddings are there already: only the noise is left to do."""

    def __init__(self, embeds: Tensor) -> None:
        super().__init__()
        self.table, self.embeds = nn.Identity(), embeds

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def forward(self) -> Tensor:
        return self.table(self.embeds)


def stock(embeds: Tensor) -> Callable[[], Tensor]:
    module = SimpleNamespace(training=True, neftune_noise_alpha=5.0)
    return lambda: neftune_post_forward_hook(module, (), embeds)


def ours(name: str, embeds: Tensor) -> Callable[[], Tensor]:
    """Return what reads the batch and adds the noise of an entry."""
    noise: Any = make(name).noise
    noise = noise.noise if isinstance(noise, AtLayers) else noise
    if isinstance(noise, Unprepared):
        table = torch.randn(VOCABULARY, embeds.shape[-1], device=DEVICE)
        noise = noise.prepare(Setup(table, lambda: torch.ones(VOCABULARY)))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(VOCABULARY, embeds.shape[:2], generator=generator).to(DEVICE)
    labels = torch.where(torch.arange(ids.shape[1], device=DEVICE) < ids.shape[1] // 2, -100, ids)
    model = Ready(embeds)
    tap = ModelHooks(model)

    def run() -> Tensor:
        batch = Batch.from_inputs({"input_ids": ids, "labels": labels}, key=1)
        with tap.open(noise, batch):
            return model()

    return run


def single_pass() -> list[str]:
    """Return the entries that add to embeddings in one pass."""
    made = {name: make(name) for name in names()}
    adding = {n: s for n, s in made.items() if s.noise is not None and not isinstance(s.noise, TokenEdit)}
    return [name for name, s in adding.items() if s.objective.passes == 1]


def compare(entries: list[str], shape: list[int], rounds: int) -> list[dict[str, Any]]:
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        embeds = torch.randn(shape, device=DEVICE, dtype=dtype)
        hook = stock(embeds)
        for name in [*entries, COPY]:
            run = embeds.clone if name == COPY else ours(name, embeds)
            times, memory = paired(hook, {name: run}, rounds)[name], peak(run) / peak(hook)
            found.append({"entry": name, "dtype": str(dtype)[6:], "time": times, "memory": memory})
    return found


def growth(rounds: int) -> dict[str, dict[int, dict[str, float]]]:
    """Return median seconds and peak bytes of neft_uniform over the length at 256 features, and over the width."""

    def measure(length: int, width: int) -> dict[str, float]:
        embeds = torch.randn(1, length, width, device=DEVICE)
        run = ours("neft_uniform", embeds)
        run()
        return {"seconds": statistics.median(seconds(run) for _ in range(rounds)), "bytes": peak(run)}

    return {"length": {n: measure(n, 256) for n in LENGTHS}, "width": {n: measure(1024, n) for n in WIDTHS}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", help="names, separated by commas; all that make a single pass if missing")
    parser.add_argument("--shape", default="4,512,4096", help="batch, length, width")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--growth", type=Path, metavar="FILE", help="measure growth instead, into a JSON file")
    options = parser.parse_args()
    # Once 16 MiB have been freed, glibc keeps what blocks are made of instead of paging it in for each of them. In
    # training tensors of some MiB come and go, here they may not.
    torch.zeros(4 << 20)
    if options.growth:
        options.growth.parent.mkdir(parents=True, exist_ok=True)
        options.growth.write_text(json.dumps({**machine(), **growth(options.rounds)}, indent=2) + "\n")
        return
    entries = options.entries.split(",") if options.entries else single_pass()
    shape = [int(size) for size in options.shape.split(",")]
    rows = [("entry", "dtype", "time", "95 % interval", "times a copy", "peak memory")]
    measured = compare(entries, shape, options.rounds)
    copies = {found["dtype"]: statistics.median(found["time"]) for found in measured if found["entry"] == COPY}
    for found in measured:
        low, high = interval(found["time"])
        median = statistics.median(found["time"])
        numbers = (f"{median:.2f}", f"{low:.2f} to {high:.2f}", f"{median / copies[found['dtype']]:.2f}")
        rows.append((found["entry"], found["dtype"], *numbers, f"{found['memory']:.2f}"))
    print(f"ratios to transformers' hook at {shape}, {machine()}\n")
    table(rows)


if __name__ == "__main__":
    main()
