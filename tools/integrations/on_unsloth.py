"""Unsloth's runs, without and with `enable`: as it trains on a CPU, and with the trainer that it generates for a GPU.

On a CPU it patches TRL's trainer, and pads. The class that it generates to replace `trl.SFTTrainer` is created here by
Unsloth's own function, and trains a transformers model, since Unsloth's own models call CUDA kernels.
"""

# ruff: noqa: E402
from __future__ import annotations

import os
import subprocess
import sys

WRITTEN = "written" in sys.argv
os.environ["UNSLOTH_COMPILE_DISABLE"] = "1"
os.environ["UNSLOTH_ALLOW_CPU" if WRITTEN else "UNSLOTH_FORCE_CPU"] = "1"
# isort: off
from unsloth import FastLanguageModel  # before trl, transformers and peft, which it patches

if WRITTEN:
    from unsloth.models.rl import _patch_trl_rl_trainers

    _patch_trl_rl_trainers("sft_trainer")

from typing import Any

import measured
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import SFTConfig, SFTTrainer

from neft_zoo import enable

LAYOUTS = {"written, padded": {}, "written, packing": {"packing": True}} if WRITTEN else {"padded": {}}


def model_of(tuning: str) -> tuple[Any, Any]:
    """Return a model and its tokenizer."""
    if WRITTEN:
        model, tokenizer = (each.from_pretrained(measured.MODEL) for each in (AutoModelForCausalLM, AutoTokenizer))
        lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        return get_peft_model(model, lora) if tuning == "lora" else model, tokenizer
    model, tokenizer = FastLanguageModel.from_pretrained(
        str(measured.MODEL), max_seq_length=256, load_in_4bit=False, full_finetuning=tuning == "full"
    )
    if tuning == "lora":
        model = FastLanguageModel.get_peft_model(model, r=8, lora_alpha=16, random_state=1)
    return model, tokenizer


def trainer_of(run: measured.Run) -> SFTTrainer:
    """Return a trainer without noise."""
    set_seed(1)
    model, tokenizer = model_of(run.tuning)
    options = {
        "output_dir": str(run.output),
        "max_length": 256,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": False,
        "max_steps": measured.STEPS,
        "learning_rate": 1e-3,
        "optim": "adamw_torch",
        "logging_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_steps": measured.STEPS,
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "seed": 1,
    }
    counts = {"train": measured.RECORDS, "test": 8}
    files = {split: measured.messages(split, count, run.folder) for split, count in counts.items()}
    data = {split: load_dataset("json", data_files=str(file), split="train") for split, file in files.items()}
    return SFTTrainer(
        model=model,
        args=SFTConfig(**options | run.options),
        train_dataset=data["train"],
        eval_dataset=data["test"],
        processing_class=tokenizer,
    )


def main() -> None:
    """Execute the runs; child processes import this file again."""
    for run in measured.runs(LAYOUTS, {"full": {}, "lora": {}}):
        trainer = trainer_of(run)
        assert type(trainer).__name__ == ("UnslothSFTTrainer" if WRITTEN else "SFTTrainer")
        if run.noise != "plain":
            enable(trainer, run.noise)
        with measured.Recorder() as recorder:
            trainer.train()
        measured.result(run, recorder)


if __name__ == "__main__":
    main()
    if not WRITTEN:
        subprocess.run([sys.executable, __file__, "written"], check=True)
