"""Time and peak memory of a training step under a strategy, as ratios to plain TRL in the same run.

python tests/benchmarks/cost.py                                         # or: make bench
python tests/benchmarks/cost.py --strategies neft_uniform,freelb --rounds 9 --json cost.json
python tests/benchmarks/cost.py --lora --strategies flat_lora,stm       # an adapter trains, in the plain step too
python tests/benchmarks/cost.py --large --strategies neft_uniform       # 1.1 B parameters in bf16 with LoRA

A step of plain `trl.SFTTrainer` and one of a strategy alternate, first one way, then the other, so that a slow spell
of the machine falls on both. A ratio is taken within its pair; its median and the bootstrap's interval are printed.
Steps of a busy machine scatter by more than noise costs. So for a single pass, a profile of as many further steps says
what the package's own code takes of each: "own" is the step over the step without it.
"""

import argparse
import cProfile
import json
import os
import pstats
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from peft import LoraConfig
from ratios import DEVICE, interval, machine, paired, peak, table
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig
from watched import SEED, TOKENIZER, scratch

import neft_zoo
from neft_zoo import NoiseSFTConfig, SFTTrainer, make
from neft_zoo.config import recipe

OURS = os.path.dirname(neft_zoo.__file__)
PLAIN = "plain trl"
DEFAULT = "neft_uniform,token_relative,hype,masked_thought,embed_mix,symnoise,r3f,r_drop,cutoff_token,cutoff_feature,"
DEFAULT += "cutoff_span,freelb,pgd,smart,lnsr,vaccine,sam,vat,noisefit,mixout,quant_noise"
LORA = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
ROWS, TOKENS, LARGE_TOKENS = 4, 128, 512
torch.set_num_threads(os.cpu_count() or 1)  # `watched` takes one


class Stepper:
    """Calls a trainer's step, optimizer included, on the same random documents.

    Args:
        noise: a strategy, or `PLAIN` for TRL's own trainer.
        model: what is trained.
        rows, tokens: shape of the batch.
        lora: an adapter to train instead of the model.
    """

    def __init__(self, noise: str, model: Any, rows: int = ROWS, tokens: int = TOKENS, lora: Any = None) -> None:
        data = Dataset.from_dict({"input_ids": torch.randint(5, 4096, (rows, tokens)).tolist()})
        settings = dict(per_device_train_batch_size=rows, max_length=None, output_dir=scratch(), max_steps=1000)
        settings |= dict(save_strategy="no", report_to="none", disable_tqdm=True, seed=SEED)
        settings |= dict(use_cpu=DEVICE == "cpu", bf16=False, gradient_checkpointing=False)
        told: dict[str, Any] = dict(train_dataset=data, processing_class=TOKENIZER, peft_config=lora)
        if noise == PLAIN:
            self.trainer = trl.SFTTrainer(model, args=trl.SFTConfig(**settings), **told)
        else:
            self.trainer = SFTTrainer(model, args=NoiseSFTConfig(**settings), noise=noise, **told)
        self.model = self.trainer.model.train()
        self.optimizer = self.trainer.create_optimizer()
        self.batch = next(iter(self.trainer.get_train_dataloader()))

    def __call__(self) -> None:
        # TRL writes into the inputs.
        self.trainer.training_step(self.model, dict(self.batch), (self.batch["labels"] != -100).sum())
        self.optimizer.step()
        self.optimizer.zero_grad()


def quickstart(noise: str, tokens: int = TOKENS, wider: int = 1, lora: LoraConfig | None = None) -> Stepper:
    """Return steps of the quickstart model's architecture, or of one that is so many times as wide."""
    torch.manual_seed(SEED)
    config = AutoConfig.from_pretrained(recipe.folder() / "quickstart" / "model")
    for name in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"):
        setattr(config, name, getattr(config, name) * wider)
    # R-Drop wants dropout, and of equal cost is what has it on both sides.
    config.attention_dropout = 0.1
    return Stepper(noise, AutoModelForCausalLM.from_config(config), tokens=tokens, lora=lora)


def large(noise: str) -> Stepper:
    """Return steps of a Llama of 1.1 B parameters, of which an adapter trains."""
    torch.manual_seed(SEED)
    shape = dict(hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32)
    config = LlamaConfig(vocab_size=32000, num_key_value_heads=4, attention_dropout=0.1, **shape)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return Stepper(noise, model, tokens=LARGE_TOKENS, lora=LORA)


def own(run: Callable[[], None]) -> float:
    """Return the time of a call over what it takes without this package's functions and the operators they call."""
    profile = cProfile.Profile()
    profile.runcall(run)
    found: dict[Any, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    whole = ours = 0.0
    for (file, *_), (_, _, seconds, _, callers) in found.items():
        whole += seconds
        if file.startswith(OURS):
            ours += seconds
        elif file == "~":  # an operator
            ours += sum(part[2] for (caller, *_), part in callers.items() if caller.startswith(OURS))
    return whole / (whole - ours)


def measure(names: list[str], rounds: int, maker: Callable[[str], Stepper] = quickstart) -> dict[str, dict[str, Any]]:
    """Return, per strategy, passes per batch, the time ratios of every pair of steps and the memory's ratio."""
    results = {}
    plain = maker(PLAIN)
    alone = peak(plain)
    for name in names:
        run, passes = maker(name), make(name).objective.passes
        times = paired(plain, {name: run}, rounds)[name]
        results[name] = {"passes": passes, "time": times, "memory": peak(run) / alone}
        if passes == 1:
            results[name]["own"] = [own(run) for _ in range(rounds)]
    return results


def spelled(ratios: list[float]) -> str:
    """Return the median and its interval."""
    low, high = interval(ratios)
    return f"{statistics.median(ratios):.3f} ({low:.3f} to {high:.3f})"


def show(results: dict[str, dict[str, Any]]) -> None:
    rows = [("strategy", "passes", "time", "own", "peak memory")]
    for name, result in results.items():
        times, shares = spelled(result["time"]), spelled(result["own"]) if "own" in result else "-"
        rows.append((name, str(result["passes"]), times, shares, f"{result['memory']:.2f}"))
    print(f"ratios to a step of plain TRL, {machine()}\n")
    table(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", default=DEFAULT, help="names, separated by commas")
    parser.add_argument("--rounds", type=int, default=30, help="pairs of steps")
    parser.add_argument("--tokens", type=int, default=TOKENS, help=f"of each of the {ROWS} rows")
    parser.add_argument("--wider", type=int, default=1, metavar="TIMES", help="a wider model than the quickstart's")
    parser.add_argument("--lora", action="store_true", help="train an adapter instead of the model")
    parser.add_argument("--large", action="store_true", help="1.1 B parameters with LoRA: needs a GPU, or hours")
    parser.add_argument("--json", type=Path, help="file for all ratios, with versions and device")
    options = parser.parse_args()
    names = [make(name).name for name in options.strategies.split(",")]  # a typo is told before anything is timed
    adapter = LORA if options.lora else None
    small = partial(quickstart, tokens=options.tokens, wider=options.wider, lora=adapter)
    results = measure(names, options.rounds, large if options.large else small)
    show(results)
    if options.json:
        about = {**machine(), "rounds": options.rounds}
        options.json.write_text(json.dumps({**about, "strategies": results}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
