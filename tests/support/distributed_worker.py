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
from accelerate import ParallelismConfig
from datasets import Dataset
from on_cpu import deepspeed_on_cpu, shard_on_cpu
from peft import LoraConfig
from short_run import short_run
from torch.distributed.tensor import DTensor
from transformers import AutoTokenizer, BitsAndBytesConfig, DistributedConfig, LlamaConfig, LlamaForCausalLM

from neft_zoo import NoiseCallback, NoiseError, NoiseSFTConfig, SFTTrainer
from neft_zoo.config import recipe
from neft_zoo.noise.batch import EMBEDDING, step_key
from neft_zoo.passes.sharding import gathered
from neft_zoo.passes.torch_internals import unwrapped
from neft_zoo.training import progress, strategy_loss

WORDS = "the cell divides when its energy is enough to copy what it holds".split()
LORA = dict(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
STORED = dict(bnb_4bit_compute_dtype=torch.float32, bnb_4bit_quant_storage=torch.float32)
QUANTIZED = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", **STORED)


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


def llama(case, saved):
    """Return a model, or the folder of one that is loaded by name, as the command does: ZeRO-3 splits such a one."""
    if case.get("tensor_parallel"):
        return LlamaForCausalLM.from_pretrained(saved, distributed_config=DistributedConfig(tp_plan="auto", tp_size=2))
    return str(saved) if case.get("saved") else build()


def build():
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
        self.record, self.session.stats.record = self.session.stats.record, self.keep

    def keep(self, step):
        for done in step.passes:
            if EMBEDDING in done.deltas:
                delta, batch = done.deltas[EMBEDDING].detach().float(), done.batch
                nominal = 1 / (3 * batch.lengths * delta.shape[-1]).sqrt()
                kept = (delta / nominal[..., None])[batch.real]
                self.ratios.append(kept.square().mean().sqrt().item())
                self.deltas = self.deltas or [delta]
        self.record(step)


class Lookup(SFTTrainer):
    """Looks the embeddings up by itself and calls parts of the model, which no hook sees."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        whole = unwrapped(model)
        embeds = torch.nn.functional.embedding(inputs["input_ids"], whole.get_input_embeddings().weight)
        return whole.lm_head(whole.model.layers[0].mlp(embeds)).float().square().mean()


class Callback(trl.SFTTrainer):
    """The same loss where a callback brings the noise."""

    compute_loss = Lookup.compute_loss

    def __init__(self, *args, noise, **kwargs):
        super().__init__(*args, callbacks=[NoiseCallback(noise)], **kwargs)


class Step(SFTTrainer):
    """Has a step of its own, which does not come to our loss."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = model(**inputs).loss
        self.accelerator.backward(loss)
        return loss.detach()


class Skips(SFTTrainer):
    """Skips the batches of the first step, as processes do that must all reduce gradients."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        if self.state.global_step == 0:
            return sum(weight.sum() for weight in model.parameters()) * 0
        return super().compute_loss(model, inputs, *args, **kwargs)


def step_of_ranks(ranks):
    """Return what stands in for `step_of`: it draws the noise of these ranks, one per micro-batch in turn."""
    turns = itertools.cycle(ranks)

    def step_of(args, processes, state):
        key = step_key(args.seed, next(turns), state.global_step)
        return {"key": key, "progress": progress.progress_of(state)}

    return step_of


def whole_copy(value):
    return (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone().float()


def train(case, out):
    """Train one case and return what it left behind."""
    settings = short_run(
        out,
        per_device_train_batch_size=2,
        learning_rate=0.1,
        optim="sgd",
        max_grad_norm=0.0,
        lr_scheduler_type="constant",
    )
    original = strategy_loss.step_of
    strategy_loss.step_of = step_of_ranks(case["ranks"]) if "ranks" in case else original
    extra = {"noise": case["noise"]} if "noise" in case else {}
    if "parallelism" in case:
        settings["parallelism_config"] = ParallelismConfig(**case["parallelism"])
    args = NoiseSFTConfig(**{**settings, **case.get("settings", {})})  # first: ZeRO-3 splits what is loaded after it
    own = {each.__name__: each for each in (Lookup, Callback, Step, Skips)}.get(case.get("trainer"), Watched)
    trainer = (own if extra else trl.SFTTrainer)(
        llama(case, out.parent / f"model-{os.environ.get('RANK', 0)}"),
        args=args,
        train_dataset=records(case.get("equal", False)),
        processing_class=tokenizer(),
        peft_config=LoraConfig(**LORA) if case.get("lora") else None,
        quantization_config=QUANTIZED if case.get("quantized") else None,
        **extra,
    )
    try:
        trainer.train()
    except NoiseError as error:
        return {"refused": str(error), "steps": trainer.accelerator.deepspeed_engine_wrapped.engine.global_steps}
    finally:
        strategy_loss.step_of = original
    if trainer.is_deepspeed_enabled:
        with gathered(list(trainer.model.parameters())):
            state = {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}
    else:
        state = trainer.accelerator.get_state_dict(trainer.model)
    return {
        "type": str(trainer.accelerator.distributed_type),
        "processes": trainer.accelerator.num_processes,
        "model": type(trainer.model).__name__,
        "empty": all(value.numel() == 0 for value in trainer.model.parameters()),
        "split": any(isinstance(value, DTensor) for value in trainer.model.parameters()),
        "losses": [line["loss"] for line in trainer.state.log_history if "loss" in line],
        # The bytes of 4-bit weights are no numbers.
        "weights": {n: whole_copy(v) for n, v in state.items() if "lora_" in n or not case.get("quantized")},
        "deltas": getattr(trainer, "deltas", []),
        "ratios": getattr(trainer, "ratios", []),
    }


def train_unless_refused(case, out):
    try:
        return train(case, out)
    except NoiseError as error:
        return {"refused": str(error)}


def main(cases, out):
    torch.set_num_threads(1)
    rank = int(os.environ.get("RANK", 0))
    found = json.loads(Path(cases).read_text())
    if any("fsdp" in case.get("settings", {}) or case.get("tensor_parallel") for case in found.values()):
        shard_on_cpu()
    if any("deepspeed" in case.get("settings", {}) for case in found.values()):
        deepspeed_on_cpu()
    build().save_pretrained(Path(out) / f"model-{rank}")  # while no engine is at work
    done = {name: train_unless_refused(case, Path(out) / name) for name, case in found.items()}
    torch.save(done, Path(out) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
