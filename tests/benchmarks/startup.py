"""Seconds that importing the package and `neft-zoo list` take beyond `python -c pass`, and answers per second.

python tests/benchmarks/startup.py                  # medians of pairs
python tests/benchmarks/startup.py --answers        # generation in batches of 16 over one prompt at a time
"""

import argparse
import os
import random
import statistics
import subprocess
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

COMMANDS = {
    "import neft_zoo": ["-c", "import neft_zoo"],
    "neft-zoo list": ["-m", "neft_zoo", "list"],
}


def start(arguments: list[str]) -> float:
    from time import perf_counter

    started = perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - started


def startup(rounds: int) -> None:
    from ratios import table

    rows = [("command", "seconds beyond python -c pass")]
    for name, arguments in COMMANDS.items():
        start(arguments)
        extra = [start(arguments) - start(["-c", "pass"]) for _ in range(rounds)]
        rows.append((name, f"{statistics.median(extra):.3f}"))
    table(rows)


def answers(rounds: int) -> None:
    import torch
    from ratios import interval, paired, table
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from neft_zoo.config import recipe
    from neft_zoo.evaluation.generation import generate

    folder = recipe.folder() / "quickstart" / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    draw = random.Random(0)
    prompts = [[draw.randrange(5, 4096) for _ in range(draw.randrange(4, 64))] for _ in range(32)]
    torch.set_num_threads(os.cpu_count() or 1)

    def run(size: int) -> None:
        generate(model, tokenizer, prompts, max_new_tokens=32, min_new_tokens=32, batch_size=size)

    times = [1 / ratio for ratio in paired(lambda: run(1), {"16": lambda: run(16)}, rounds)["16"]]
    low, high = interval(times)
    rows = [("batch", "times as fast", "95 % interval")]
    table([*rows, ("16", f"{statistics.median(times):.1f}", f"{low:.1f} to {high:.1f}")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", action="store_true", help="measure generation instead")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    (answers if options.answers else startup)(options.rounds)


if __name__ == "__main__":
    main()
