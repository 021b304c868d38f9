"""What noise on the weights cannot reach is refused, and what it can is reached: experts, embeddings, adapters."""

import copy

import numpy as np
import pytest
import torch
from peft import LoraConfig, PromptEncoderConfig, get_peft_model
from small_models import BATCH, gradients, moved, same, weights, with_lora
from transformers import MixtralConfig, MixtralForCausalLM

from neft_zoo import NoiseError, Trainer, attach


def mixtral():
    sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    return MixtralForCausalLM(MixtralConfig(vocab_size=32, num_key_value_heads=2, num_local_experts=2, **sizes))


@pytest.mark.parametrize("name", ["mixout", "quant_noise", "flat_lora"])
def test_experts_that_are_one_weight_are_not_left_out(name):
    with pytest.raises(NoiseError, match=rf"^{name} needs .* matrices .* shape \(2, .* in \S*experts"):
        attach(mixtral(), name, total_steps=1)
    if name != "mixout":
        parameters = ["mlp.experts.down_proj"]
        model = get_peft_model(mixtral(), LoraConfig(target_modules=["q_proj"], target_parameters=parameters))
        with pytest.raises(NoiseError, match=rf"^{name} needs .* matrices .* shape \(2, .* in \S*experts"):
            attach(model, name, total_steps=1)


@pytest.mark.parametrize("name", ["mixout", "quant_noise", "flat_lora"])
def test_the_layers_of_a_prompt_encoder_are_not_the_models(llama, name):
    config = PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=2, encoder_hidden_size=8)
    with pytest.raises(NoiseError, match=f"{name} needs linear layers that carry LoRA, or no adapter, got P_TUNING"):
        attach(get_peft_model(llama(), config), name, total_steps=1)


def test_lora_matrix_dropout_drops_words_of_an_embeddings_adapter(llama):
    model = with_lora(llama(tie_word_embeddings=False), target_modules=["embed_tokens"]).train()
    before = weights(model)
    handle = attach(model, "lora_matrix_dropout", total_steps=1)
    with handle.perturbed():
        during = weights(model)
        handle.loss(BATCH).backward()
        noisy = copy.deepcopy(model)
    got = gradients(model)
    noisy(**BATCH).loss.backward()
    inside, sides = gradients(noisy), [name for name in before if "lora_" in name]
    assert len(sides) == 2 and same(weights(model), before)
    for name in sides:
        kept = (during[name] != 0).any(0 if "_A" in name else 1, keepdim=True)
        assert 0.2 < kept.double().mean() < 0.8 and torch.equal(during[name], before[name] * kept * 2)
        np.testing.assert_allclose(got[name], inside[name] * kept.numpy() * 2, rtol=1e-4, atol=1e-9)


def test_lora_matrix_dropout_refuses_adapters_that_are_one(llama):
    settings = LoraConfig(target_modules=["embed_tokens", "lm_head"], ensure_weight_tying=True)
    model = get_peft_model(llama(), settings)
    with pytest.raises(NoiseError, match="ensure_weight_tying must be false with lora_matrix_dropout"):
        attach(model, "lora_matrix_dropout", total_steps=1)


def test_mixout_knows_its_start_in_a_resumed_run_whose_model_is_made_anew(llama, config):
    args = config(max_steps=2, save_steps=1, save_strategy="steps")
    rows = [{name: value[0] for name, value in BATCH.items()}] * 8

    def run(**resumed):
        trainer = Trainer(model_init=lambda: llama(), args=args, train_dataset=rows, noise="mixout")
        trainer.train(**resumed)
        return weights(trainer.model)

    whole = run()
    assert same(run(resume_from_checkpoint=f"{args.output_dir}/checkpoint-1"), whole)


def test_lora_matrix_dropout_drops_in_a_matrix_that_is_frozen(llama):
    """MiCA trains A alone."""
    model = with_lora(llama()).train()
    for name, weight in model.named_parameters():
        weight.requires_grad_("lora_A" in name)
    before, handle = weights(model), attach(model, "lora_matrix_dropout", total_steps=1)
    with handle.perturbed():
        changed = moved(before, weights(model))
        handle.loss(BATCH).backward()
    assert {name for name in before if "lora_" in name} == set(changed) and same(weights(model), before)
