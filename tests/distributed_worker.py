"""Trains the cases of a JSON file in one process or, through a launcher, in two, and saves what each rank saw.

torchrun --standalone --nproc_per_node 2 distributed_worker.py cases.json out
"""

import itertools
import json
import os
import sys
from functools import cache
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

import torch
import trl
from accelerate.state import AcceleratorState, DistributedType, PartialState
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from neft_zoo import NoiseSFTConfig, SFTTrainer, mixin, recipe
from neft_zoo.batch import EMBEDDING

WORDS = "the cell divides when its energy is enough to copy what it holds".split()
LORA = dict(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)


@cache
def tokenizer():
    return AutoTokenizer.from_pretrained(recipe.folder() / "quickstart" / "model")


def records(equal):
    """Return 16 conversations, all equal or all different."""
    sizes = [(3, 5) if equal else (i % 7 + 1, i % 5 + 1) for i in range(16)]
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": " ".join([str(0 if equal else i), *WORDS[:asked]])}],
                "completion": [{"role": "assistant", "content": " ".join(WORDS[:told])}],
            }
            for i, (asked, told) in enumerate(sizes)
        ]
    )


def llama():
    torch.manual_seed(0)
    numbers = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2)
    heads = dict(num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=False)
    special = dict(pad_token_id=tokenizer().pad_token_id, eos_token_id=tokenizer().eos_token_id)
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer()), **numbers, **heads, **special))


class Watched(SFTTrainer):
    """Keeps the deltas of the first step, and each pass's rms over its nominal value."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.deltas, self.ratios = [], []

    def _record(self, step):
        for done in step.passes:
            if EMBEDDING in done.deltas:
                delta, batch = done.deltas[EMBEDDING].detach().float(), done.batch
                nominal = 1 / (3 * batch.lengths * delta.shape[-1]).sqrt()
                kept = (delta / nominal[..., None])[batch.real]
                self.ratios.append(kept.square().mean().sqrt().item())
                self.deltas = self.deltas or [delta]
        super()._record(step)


def shard_on_cpu():
    """Let accelerate set FSDP up on CPU as it does on GPUs; it would go on with DDP without a word."""
    original = AcceleratorState.__init__

    def init(self, *args, **kwargs):
        if PartialState._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        original(self, *args, **kwargs)

    AcceleratorState.__init__ = init


def rank_of(ranks):
    """Return what stands in for the data-parallel rank: itself, one number, or one per micro-batch in turn."""
    turns = itertools.cycle(ranks)
    return lambda accelerator: next(turns)


def train(case, out):
    """Train one case and return what it left behind."""
    settings = dict(
        output_dir=str(out),
        max_steps=2,
        per_device_train_batch_size=2,
        learning_rate=0.1,
        optim="sgd",
        max_grad_norm=0.0,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        gradient_checkpointing=False,
    )
    original = mixin.data_parallel_rank
    mixin.data_parallel_rank = rank_of(case["ranks"]) if "ranks" in case else original
    extra = {"noise": case["noise"]} if "noise" in case else {}
    trainer = (Watched if extra else trl.SFTTrainer)(
        llama(),
        args=NoiseSFTConfig(**{**settings, **case.get("settings", {})}),
        train_dataset=records(case.get("equal", False)),
        processing_class=tokenizer(),
        peft_config=LoraConfig(**LORA) if case.get("lora") else None,
        **extra,
    )
    trainer.train()
    mixin.data_parallel_rank = original
    state = trainer.accelerator.get_state_dict(trainer.model)
    return {
        "type": str(trainer.accelerator.distributed_type),
        "processes": trainer.accelerator.num_processes,
        "model": type(trainer.model).__name__,
        "losses": [line["loss"] for line in trainer.state.log_history if "loss" in line],
        "weights": {name: value.detach().clone().float() for name, value in state.items()},
        "deltas": getattr(trainer, "deltas", []),
        "ratios": getattr(trainer, "ratios", []),
    }


def main(cases, out):
    torch.set_num_threads(1)
    rank = int(os.environ.get("RANK", 0))
    found = json.loads(Path(cases).read_text())
    if any("fsdp" in case.get("settings", {}) for case in found.values()):
        shard_on_cpu()
    done = {name: train(case, Path(out) / name) for name, case in found.items()}
    torch.save(done, Path(out) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
