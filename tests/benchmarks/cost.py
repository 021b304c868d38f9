"""Time, and on CUDA memory, of a training step under a strategy, as a ratio to plain TRL in the same run.

python tests/benchmarks/cost.py                                         # or: make bench
python tests/benchmarks/cost.py --strategies neft_uniform,freelb --rounds 9 --json cost.json

Every round trains plain `trl.SFTTrainer` and each strategy in turn, every other round backwards, so that a slow spell
of the machine falls on all of them. A ratio is taken within its round; its median and its extremes are printed.
"""

import argparse
import json
import platform
import statistics
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
import trl
from datasets import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback
from watched import SEED, TOKENIZER, scratch

from neft_zoo import NoiseSFTConfig, SFTTrainer, make, recipe

PLAIN = "plain trl"
DEFAULT = "none,neft_uniform,neft_gaussian,neft_sphere,token_relative,masked_thought,symnoise,r3f,freelb,smart"
ROWS, TOKENS = 8, 256


class Clock(TrainerCallback):
    """Notes the seconds of every optimizer step but the first, which warms up."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, args, state, control, **kwargs):
        self.wait()
        self.started = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.wait()
        if state.global_step > 1:
            self.seconds.append(time.perf_counter() - self.started)

    def wait(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()


def train(noise: str, steps: int, cuda: bool = torch.cuda.is_available()) -> tuple[float, int]:
    """Train the quickstart model's architecture; return the median seconds of a step and the peak bytes (0 on CPU)."""
    torch.manual_seed(SEED)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(recipe.folder() / "quickstart" / "model"))
    data = Dataset.from_dict({"input_ids": torch.randint(5, 4096, (ROWS * (steps + 1), TOKENS)).tolist()})
    settings = dict(max_steps=steps + 1, per_device_train_batch_size=ROWS, max_length=None, output_dir=scratch())
    settings |= dict(save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True, seed=SEED)
    settings |= dict(use_cpu=not cuda, bf16=False, gradient_checkpointing=False)
    clock = Clock()
    told: dict[str, Any] = dict(train_dataset=data, processing_class=TOKENIZER, callbacks=[clock])
    if noise == PLAIN:
        trainer = trl.SFTTrainer(model, args=trl.SFTConfig(**settings), **told)
    else:
        trainer = SFTTrainer(model, args=NoiseSFTConfig(**settings), noise=noise, **told)
    trainer.remove_callback(transformers.PrinterCallback)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    return statistics.median(clock.seconds), torch.cuda.max_memory_allocated() if cuda else 0


def measure(names: list[str], steps: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Return, per strategy, passes per batch and the ratios of every round."""
    times, memories, order = defaultdict(list), defaultdict(list), [PLAIN, *names]
    train(PLAIN, 1)  # the first run of a process is slow
    for _ in range(rounds):
        done = {name: train(name, steps) for name in order}
        order.reverse()
        for name in names:
            times[name].append(done[name][0] / done[PLAIN][0])
            if done[PLAIN][1]:
                memories[name].append(done[name][1] / done[PLAIN][1])
    passes = {name: make(name).objective.passes for name in names}
    return {name: {"passes": passes[name], "time": times[name], "memory": memories[name]} for name in names}


def show(results: dict[str, dict[str, Any]]) -> None:
    width = max(map(len, results))
    print(f"{'strategy'.ljust(width)}  passes  time  smallest  largest  memory")
    for name, result in results.items():
        ratios = result["time"]
        memory = f"{statistics.median(result['memory']):.2f}" if result["memory"] else "-"
        cells = f"{result['passes']:6}  {statistics.median(ratios):4.2f}  {min(ratios):8.2f}  {max(ratios):7.2f}"
        print(f"{name.ljust(width)}  {cells}  {memory:>6}")
    print("\ntime, memory: ratio to a step of plain TRL; memory is measured on CUDA only")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", default=DEFAULT, help="names, separated by commas")
    parser.add_argument("--steps", type=int, default=4, help="steps that are timed, per strategy and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for all ratios, with versions and device")
    options = parser.parse_args()
    names = [make(name).name for name in options.strategies.split(",")]  # a typo is told before anything is timed
    results = measure(names, options.steps, options.rounds)
    show(results)
    if options.json:
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu"
        versions = {name: version(name) for name in ("neft-zoo", "torch", "transformers", "trl")}
        about = {"device": device, "threads": torch.get_num_threads(), "steps": options.steps, "versions": versions}
        options.json.write_text(json.dumps({**about, "strategies": results}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
