"""Seconds of `neft-zoo compare` over short runs, as a ratio to what their training and its measurements take.

python tests/benchmarks/comparing.py [--steps 40] [--seeds 4]

Beyond training there are the losses of every run's end on test and training records, which a comparison is about, and
what it would rather not pay: imports, model, data, processes. One run at a time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STRATEGIES = ("none", "neft_uniform", "neft_gaussian", "token_relative", "embedding_dropout")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "short.yaml"
        recipe.write_text(f"extends: quickstart\nmax_steps: {options.steps}\neval_strategy: epoch\n")
        command = [sys.executable, "-m", "neft_zoo", "compare", str(recipe), "--strategies", ",".join(STRATEGIES)]
        command += ["--seeds", str(options.seeds), "--lengths", "1", "--output", f"{folder}/results", "--jobs", "1"]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        whole = time.perf_counter() - started
        records = [json.loads(file.read_text()) for file in sorted(Path(folder, "results").rglob("*-s*.json"))]
    training, measuring = (sum(record[name] for record in records) for name in ("wall_s", "measuring_s"))
    print(f"{len(records)} runs of {options.steps} steps: {whole:.1f} s, {training:.1f} s of it training, ", end="")
    print(f"{measuring:.1f} s measuring losses")
    print(f"ratio to training {whole / training:.3f}, to both {whole / (training + measuring):.3f}")


if __name__ == "__main__":
    main()
