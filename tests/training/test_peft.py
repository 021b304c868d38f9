"""Every adapter trains with noise, the noise arrives, and what is saved is plain PEFT."""

import pytest
import torch
from peft import (
    AutoPeftModelForCausalLM,
    IA3Config,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors import safe_open
from small_models import apart, fitting, same, weights, with_lora
from transformers import BitsAndBytesConfig

from neft_zoo import NoiseError, SFTTrainer, attach
from neft_zoo.noise.batch import Batch
from neft_zoo.passes.hooks import ModelHooks
from neft_zoo.registry.entries import make

LORA = dict(r=4, lora_alpha=8, task_type="CAUSAL_LM")
VIRTUAL = dict(task_type="CAUSAL_LM", num_virtual_tokens=3)
ADAPTERS = {
    "lora": lambda: LoraConfig(**LORA, target_modules="all-linear"),
    "dora": lambda: LoraConfig(**LORA, target_modules=["q_proj"], use_dora=True),
    "lora on the embedding": lambda: LoraConfig(**LORA, target_modules=["q_proj", "embed_tokens"]),
    "modules_to_save": lambda: LoraConfig(**LORA, target_modules=["q_proj"], modules_to_save=["embed_tokens"]),
    "trainable tokens": lambda: LoraConfig(
        **LORA, target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [2, 3]}
    ),
    "ia3": lambda: IA3Config(
        task_type="CAUSAL_LM", target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]
    ),
    "prompt tuning": lambda: PromptTuningConfig(**VIRTUAL),
    "p-tuning": lambda: PromptEncoderConfig(**VIRTUAL, encoder_hidden_size=16),
    "prefix tuning": lambda: PrefixTuningConfig(**VIRTUAL),
}


@pytest.mark.cell("Adapters", "{name}")
@pytest.mark.parametrize("name", ADAPTERS)
def test_noise_arrives_under_the_adapter(llama, name):
    model = get_peft_model(llama(tie_word_embeddings=False), ADAPTERS[name]())
    seen = []
    layer = model.get_base_model().model.layers[0]
    handle = layer.register_forward_pre_hook(lambda m, args, kwargs: seen.append(args[0].detach()), with_kwargs=True)
    inputs = {"input_ids": torch.arange(5, 17).view(2, 6), "attention_mask": torch.ones(2, 6).long()}
    batch = Batch.from_inputs(inputs, key=1)
    tap = ModelHooks(model)
    with tap.open(None, batch):
        model(**inputs)
    with tap.open(make("neft_uniform").noise, batch) as done:
        model(**inputs)
    tap.detach()
    handle.remove()
    difference = (seen[1] - seen[0])[:, -6:]
    assert torch.allclose(difference, done.deltas[-1], atol=1e-6) and difference.abs().max() > 0.1
    assert torch.equal(seen[1][:, :-6], seen[0][:, :-6]), "virtual tokens stay clean"


@pytest.mark.cell("Adapters", "{name}")
@pytest.mark.parametrize("name", ADAPTERS)
def test_adapter_trains_saves_and_loads_in_plain_peft(llama, config, records, tokenizer, tmp_path, name):
    untied = dict(tie_word_embeddings=False)
    llama(**untied).save_pretrained(tmp_path / "base")

    def train(noise):
        out = str(tmp_path / noise)
        args = config(output_dir=out, max_steps=3)
        trainer = SFTTrainer(
            llama(**untied),
            args=args,
            train_dataset=records,
            processing_class=tokenizer,
            noise=noise,
            peft_config=ADAPTERS[name](),
        )
        before = weights(trainer.model)
        trainer.train()
        assert not same(weights(trainer.model), before)
        trainer.save_model(out)
        return trainer

    noisy = train("neft_uniform")
    assert all(line["noise/rms"] > 0 for line in noisy.state.log_history if "loss" in line)
    keys = []
    for trainer in (noisy, train("none")):
        with safe_open(f"{trainer.args.output_dir}/adapter_model.safetensors", "pt") as saved:
            keys.append(sorted(saved.keys()))
    assert keys[0] == keys[1]
    loaded = PeftModel.from_pretrained(llama(**untied), noisy.args.output_dir)
    ids = torch.tensor([[5, 6, 7]])
    noisy.model.eval()
    torch.testing.assert_close(loaded.eval()(ids).logits, noisy.model(ids).logits, atol=2e-6, rtol=1e-5)


@pytest.mark.cell("Adapters", "disable_adapter() while noise is attached")
@pytest.mark.cell("Adapters", "another adapter switched to while noise is attached")
@pytest.mark.cell("Adapters", "merge_and_unload() while noise is attached")
def test_adapters_switch_and_merge_while_noise_is_attached(llama):
    model = get_peft_model(llama(), ADAPTERS["lora"]())
    clean = llama()
    ids = torch.tensor([[5, 6, 7]])
    tap = ModelHooks(model)
    with (
        torch.no_grad(),
        model.disable_adapter(),
        tap.open(make("neft_uniform").noise, Batch.from_inputs({"input_ids": ids})),
    ):
        assert torch.equal(model(ids).logits, clean(ids).logits)
    model.add_adapter("other", ADAPTERS["lora"]())
    model.set_adapter("other")
    with tap.open(make("neft_uniform").noise, Batch.from_inputs({"input_ids": ids})) as done:
        model(ids)
    assert done.deltas
    merged = model.merge_and_unload()
    assert torch.allclose(merged(ids).logits, clean(ids).logits, atol=1e-6)
    tap.detach()


@pytest.mark.parametrize("noise", ["neft_uniform", "symnoise", "token_relative", "hype"])
@pytest.mark.parametrize("targets", [["embed_tokens"], ["q_proj", "embed_tokens"], ["q_proj"]])
def test_an_adapter_that_comes_after_attach_is_as_one_before(llama, targets, noise):
    ids = torch.arange(5, 29).view(4, 6)
    found = []
    for early in (True, False):
        model = llama(tie_word_embeddings=False).train()
        early_handle = attach(model, fitting(noise), total_steps=1)
        torch.manual_seed(2)
        adapted = get_peft_model(model, LoraConfig(**LORA, init_lora_weights=False, target_modules=targets))
        handle = early_handle if early else attach(adapted, fitting(noise), total_steps=1)
        handle.loss({"input_ids": ids, "labels": ids.clone()}, step=0).backward()
        found.append((handle.measured, {n: w.grad for n, w in model.named_parameters() if w.grad is not None}))
    (first, one), (second, other) = found
    assert first == pytest.approx(second) and first["rms"] > 0.001
    assert one.keys() == other.keys() and apart(one, other) < 1e-6


QUANTIZED = {
    "nf4": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32),
    "nf4 double": dict(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    ),
    "fp4": dict(load_in_4bit=True, bnb_4bit_quant_type="fp4", bnb_4bit_compute_dtype=torch.float32),
    "int8": dict(load_in_8bit=True),
}


@pytest.mark.cell("Adapters", "QLoRA, {name}")
@pytest.mark.parametrize("name", ["nf4", *(pytest.param(n, marks=pytest.mark.slow) for n in list(QUANTIZED)[1:])])
def test_qlora_trains_real_steps(llama, config, records, tokenizer, tmp_path, name):
    llama(hidden_size=64).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    args = config(max_steps=2, per_device_train_batch_size=2, model_init_kwargs={"dtype": "float32"})
    trainer = SFTTrainer(
        str(tmp_path / "base"),
        args=args,
        train_dataset=records,
        noise="neft_uniform",
        quantization_config=BitsAndBytesConfig(**QUANTIZED[name]),
        peft_config=ADAPTERS["lora"](),
    )
    assert any("bit" in type(m).__name__.lower() for m in trainer.model.modules())
    before = weights(trainer.model)
    trainer.train()
    after = weights(trainer.model)
    moved = [key for key in after if "lora_B" in key and not torch.equal(after[key], before[key])]
    assert len(moved) == sum("lora_B" in key for key in after)
    log = trainer.state.log_history[0]
    # Documents of 8 to 45 tokens, 64 wide.
    assert 5 / (3 * 45 * 64) ** 0.5 < log["noise/rms"] < 5 / (3 * 8 * 64) ** 0.5 and log["loss"] < 20
    trainer.save_model(str(tmp_path / "adapter"))
    assert AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")


@pytest.mark.cell("Adapters", "load a saved adapter and go on")
def test_a_saved_adapter_goes_on_training(llama, config, records, tokenizer, tmp_path):
    settings = dict(train_dataset=records, processing_class=tokenizer, noise="neft_uniform")
    first = SFTTrainer(llama(), args=config(max_steps=2), peft_config=ADAPTERS["lora"](), **settings)
    first.train()
    first.save_model(str(tmp_path / "adapter"))
    again = PeftModel.from_pretrained(llama(), str(tmp_path / "adapter"), is_trainable=True)
    assert same(weights(again), weights(first.model))
    second = SFTTrainer(again, args=config(max_steps=2, output_dir=str(tmp_path / "second")), **settings)
    second.train()
    assert not same(weights(second.model), weights(first.model))
    assert all(line["noise/rms"] > 0 for line in second.state.log_history if "loss" in line)


def test_the_dropout_of_an_adapter_that_is_not_active_is_none(llama):
    model = with_lora(llama(), lora_dropout=0.0)
    model.add_adapter("other", LoraConfig(r=2, target_modules=["v_proj"], lora_dropout=0.5))
    with pytest.raises(NoiseError, match="two passes of a model without dropout are the same"):
        attach(model, "r_drop", total_steps=1)
    model.set_adapter("other")
    attach(model, "r_drop", total_steps=1)
