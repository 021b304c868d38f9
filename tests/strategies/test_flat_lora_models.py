"""flat_lora on the models it works with, and those it refuses."""

import pytest
import torch
from peft import LoraConfig
from scipy import stats
from small_models import moved, same, weights, with_lora
from transformers import BitsAndBytesConfig, GPT2Config, GPT2LMHeadModel

from neft_zoo import NoiseError, SFTTrainer, attach, make


def test_without_an_adapter_the_linear_layers_that_train_move(llama):
    model = llama(tie_word_embeddings=False)
    model.model.layers[0].requires_grad_(False)
    before = weights(model)
    with attach(model, "flat_lora", total_steps=1).perturbed(step=1):
        added = moved(before, weights(model))
    assert all(name.startswith(("model.layers.1.", "lm_head")) for name in added) and len(added) == 8


def test_rows_of_a_conv1d_run_along_its_inputs():
    """GPT-2 keeps its matrices transposed: an output is a column."""
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=64, n_head=2, vocab_size=64, n_positions=16))
    model = with_lora(gpt2, target_modules=["c_fc"], fan_in_fan_out=True)
    weight = model.get_submodule("base_model.model.transformer.h.0.mlp.c_fc").base_layer.weight
    weight.data *= torch.linspace(0.1, 10, weight.shape[1])
    before = weight.detach().double().clone()
    layer = model.get_submodule("base_model.model.transformer.h.0.mlp.c_fc")
    whole = before + 2 * (layer.lora_B["default"].weight @ layer.lora_A["default"].weight).T.double()
    with attach(model, {"name": "flat_lora", "rho": 0.3}, total_steps=1).perturbed(step=1):
        z = (weight.double() - before) / (0.3 * whole.square().mean(0).sqrt())
    assert layer.scaling["default"] == 2 and stats.kstest(z.detach().ravel().numpy(), stats.norm.cdf).pvalue > 1e-6


def test_a_tied_weight_that_two_layers_adapt_is_restored(llama):
    model = with_lora(llama(), target_modules=["embed_tokens", "lm_head"], ensure_weight_tying=False)
    tied = {m.base_layer.weight.data_ptr() for m in model.modules() if hasattr(m, "base_layer")}
    assert len(tied) == 1
    before = weights(model)
    with attach(model, "flat_lora", total_steps=1).perturbed(step=1):
        assert not same(weights(model), before)
    assert same(weights(model), before)


def test_adapters_on_other_layers_do_not_matter(llama):
    model = with_lora(llama(), target_modules=["q_proj"])
    model.add_adapter("other", LoraConfig(r=2, target_modules=["v_proj"]))
    model.base_model.set_adapter(["default", "other"])
    before = weights(model)
    with attach(model, "flat_lora", total_steps=1).perturbed(step=1):
        assert {name.split(".")[-3] for name in moved(before, weights(model))} == {"q_proj", "v_proj"}
    assert same(weights(model), before)


QUANTIZED = {
    "nf4": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "nf4 stored as floats": dict(load_in_4bit=True, bnb_4bit_quant_storage=torch.bfloat16),
    "int8": dict(load_in_8bit=True),
}


@pytest.mark.parametrize("name", QUANTIZED)
def test_a_quantized_base_is_refused_before_training(llama, config, records, tokenizer, tmp_path, name):
    llama(hidden_size=64).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    with pytest.raises(NoiseError, match=r"^flat_lora needs plain weights of 16 bits or more.* got \w+ .* in \S+\.$"):
        SFTTrainer(
            str(tmp_path / "base"),
            args=config(),
            train_dataset=records,
            noise="flat_lora",
            quantization_config=BitsAndBytesConfig(**QUANTIZED[name]),
            peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
        )


def test_bad_input_is_refused(llama):
    for rho in (-0.1, float("nan")):
        with pytest.raises(NoiseError, match="^flat_lora: rho must be"):
            make({"name": "flat_lora", "rho": rho})
    with pytest.raises(NoiseError, match="linear layers that train or carry LoRA, got none"):
        attach(llama().requires_grad_(False), "flat_lora", total_steps=1)
