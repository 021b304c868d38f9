"""Every entry trains the shipped model, with the settings of its own recipe: full, LoRA and QLoRA."""

import math

import pytest
import torch
from datasets import load_dataset
from peft import LoraConfig
from selection import one_of_each_kind, quick
from small_models import QUICKSTART, same, weights
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from neft_zoo import NoiseError, SFTTrainer, registry
from neft_zoo.config import recipe
from neft_zoo.training.token_counts import FILE, load_counts

NAMES = [name for name in registry.builtin_names() if name != "visual_noise"]  # the model reads text
NF4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)


@pytest.fixture(scope="module")
def instructions():
    return load_dataset(str(QUICKSTART / "data"))["train"].select(range(4))


def trainer_of(name, adapter, config, tokenizer, data, steps, **settings):
    """Return a trainer of the shipped model under the noise of the entry's recipe."""
    dropout = 0.1 if name == "r_drop" else 0.0
    adapter = {"lora_matrix_dropout": "lora", "stm": "lora", "mixout": "full"}.get(name, adapter)
    model = AutoModelForCausalLM.from_pretrained(
        QUICKSTART / "model",
        attention_dropout=dropout,
        quantization_config=NF4 if adapter == "qlora" else None,
    )
    lora = LoraConfig(r=8, target_modules="all-linear", lora_dropout=dropout, task_type="CAUSAL_LM")
    rate = 1e-3 if adapter == "full" else 1e-2
    settings = dict(max_steps=steps, per_device_train_batch_size=4, learning_rate=rate, max_length=48) | settings
    return SFTTrainer(
        model,
        args=config(lr_scheduler_type="constant", **settings),
        train_dataset=data,
        eval_dataset=data,
        processing_class=tokenizer,
        peft_config=None if adapter == "full" else lora,
        # The small model finds few tokens as likely as the recipe asks for, and would learn those alone.
        noise={**recipe.load(name).values["noise"], **({"threshold": 1000} if name == "stm" else {})},
    )


def learns(trainer):
    """Train; return whether every loss is finite and the clean loss has fallen."""
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return all(map(math.isfinite, losses)) and trainer.evaluate()["eval_loss"] < before - 0.05


@pytest.mark.parametrize("adapter", quick(["full", "lora"], "full"))
@pytest.mark.parametrize("name", quick(NAMES, *one_of_each_kind(NAMES)))
def test_entry_learns(name, adapter, config, tokenizer, instructions):
    assert learns(trainer_of(name, adapter, config, tokenizer, instructions, steps=2))


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["full", "lora"])
@pytest.mark.parametrize("name", NAMES)
def test_entry_learns_for_twenty_steps(name, adapter, config, tokenizer, instructions):
    settings = dict(gradient_checkpointing=True, gradient_accumulation_steps=2, per_device_train_batch_size=4)
    assert learns(trainer_of(name, adapter, config, tokenizer, instructions, steps=20, **settings))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*NAMES} - {"flat_lora", "mixout", "quant_noise"}))
def test_entry_learns_on_a_quantized_base(name, config, tokenizer, instructions):
    assert learns(trainer_of(name, "qlora", config, tokenizer, instructions, steps=20))


def test_weight_noise_refuses_a_quantized_base(config, tokenizer, instructions):
    with pytest.raises(NoiseError, match="flat_lora needs plain weights of 16 bits or more"):
        trainer_of("flat_lora", "qlora", config, tokenizer, instructions, steps=1)


def test_token_counts_are_saved_and_a_resumed_run_goes_on_with_them(config, tokenizer, instructions, tmp_path):
    def run(data, resume=None):
        settings = dict(save_strategy="steps", save_steps=2, output_dir=str(tmp_path / "run"))
        trainer = trainer_of("token_frequency", "full", config, tokenizer, data, steps=4, **settings)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    whole = run(instructions)
    checkpoint = tmp_path / "run" / "checkpoint-2"
    counts = load_counts(checkpoint)
    ids = [token for record in whole.train_dataset for token in record["input_ids"]]
    assert counts is not None and counts.sum() == len(ids) and counts[ids[0]] == ids.count(ids[0])
    assert same(weights(run(instructions, str(checkpoint)).model), weights(whole.model))
    other = trainer_of("token_frequency", "full", config, tokenizer, instructions.select(range(2)), steps=4)
    other._resume_counts(checkpoint)
    assert torch.equal(other.session.counts(), counts) and (checkpoint / FILE).exists()
