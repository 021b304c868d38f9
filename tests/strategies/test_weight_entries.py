"""mixout, quant_noise, lora_matrix_dropout and sam: weights that change for a step, and the gradients at them."""

import contextlib
import copy
import math
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from peft import AdaLoraConfig, LoraConfig, get_peft_model
from scipy import stats
from small_models import moved, same, weights, with_lora
from transformers import GPT2Config, GPT2LMHeadModel

from neft_zoo import NoiseError, SFTTrainer, attach, make, names
from neft_zoo.errors import NoiseWarning
from neft_zoo.evaluation.quantization import GROUP, round_to_nearest
from neft_zoo.passes.accumulation import EngineBackward
from neft_zoo.passes.weight_noise import RoundingNoise

IDS = torch.arange(5, 29).view(4, 6)
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": IDS.clone()}


def gradients(model):
    found = {name: p.grad.double().numpy().copy() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def linear(model):
    return [n for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n]


def drifted(model):
    """Move the weights, as training does."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return model


def test_mixout_mixes_whole_inputs_with_the_weights_that_training_began_with(llama):
    """((1 - m) W0 + m W - p W0) / (1 - p), an m per column, which the gradient is multiplied by."""
    model = llama(hidden_size=64, tie_word_embeddings=False).train()
    handle = attach(model, {"name": "mixout", "p": 0.7}, total_steps=10)
    begin = weights(model)
    drifted(model)
    now, shares = weights(model), []
    with handle.perturbed(step=3):
        during = weights(model)
        handle.loss(BATCH).backward()
        noisy = copy.deepcopy(model)
    assert same(weights(model), now), "restored bit for bit"
    got = gradients(model)
    noisy(**BATCH).loss.backward()
    inside = gradients(noisy)
    for name in linear(model):
        w0, w, mixed = (state[name].double().numpy() for state in (begin, now, during))
        m = np.array([not np.allclose(mixed[:, i], w0[:, i], atol=1e-6) for i in range(w.shape[1])])
        expected = ((1 - m) * w0 + m * w - 0.7 * w0) / 0.3
        np.testing.assert_allclose(mixed, expected, atol=1e-5)
        np.testing.assert_allclose(got[name], inside[name] * m / 0.3, rtol=1e-4, atol=1e-9)
        shares.append(m.mean())
    assert abs(np.mean(shares) - 0.3) < 6 * math.sqrt(0.21 / 64 / len(shares))
    untouched = set(now) - set(linear(model)) - {"lm_head.weight"}
    assert untouched and all(torch.equal(now[name], during[name]) for name in untouched)


def test_mixout_leaves_a_table_alone_that_the_head_shares(llama):
    model = llama(tie_word_embeddings=True).train()
    handle = attach(model, "mixout", total_steps=10)
    drifted(model)
    before = model.lm_head.weight.detach().clone()
    with handle.perturbed(step=0):
        assert torch.equal(model.lm_head.weight, before)


def test_mixout_keeps_its_start_through_a_resume_and_takes_a_new_one_for_a_new_run(llama):
    """A run that is resumed is made with the pretrained model, before the checkpoint's weights are loaded."""
    model = llama().train()
    name, begin = linear(model)[0], weights(model)
    strategy = make("mixout", p=0.999999)
    handle = attach(model, strategy, total_steps=4)
    drifted(model)
    attach(model, strategy, total_steps=4)
    with handle.perturbed(step=1):
        assert torch.allclose(model.get_parameter(name), begin[name]), "all inputs fall back"
    again = attach(model, strategy, total_steps=4)
    again.begin()
    moved_on = weights(model)
    with again.perturbed(step=1):
        assert torch.allclose(model.get_parameter(name), moved_on[name])


def test_mixout_is_for_full_fine_tuning(llama):
    with pytest.raises(
        NoiseError, match="mixout must train the weights themselves, got a LoRA adapter: set lora_drop"
    ):
        attach(with_lora(llama()), "mixout", total_steps=1)


def test_lora_matrix_dropout_refuses_matrices_that_are_no_layers(llama):
    model = get_peft_model(llama(), AdaLoraConfig(target_modules=["q_proj"], total_step=9, init_r=4, target_r=2))
    with pytest.raises(NoiseError, match="model must carry LoRA on linear layers, got SVDLinear"):
        attach(model, "lora_matrix_dropout", total_steps=1)


EVERY_STEP = [name for name in names() if getattr(make(name).weights, "every_step", False)]


def change(weights):
    """Change weights as an optimizer does that is none of torch's."""
    with torch.no_grad():
        for weight in weights:
            weight.add_(1)


@pytest.mark.parametrize(
    "step",
    [partial(torch.optim.SGD, lr=0.1), partial(torch.optim.AdamW, fused=True), None],
    ids=["sgd", "fused", "own"],
)
@pytest.mark.parametrize("name", EVERY_STEP)
def test_a_loop_that_trains_without_the_noise_is_warned_and_one_that_loses_its_steps_refused(llama, name, step):
    model = (llama() if name == "mixout" else with_lora(llama())).train()
    handle = attach(model, name, total_steps=4)
    part = {"mixout": "proj.weight", "lora_matrix_dropout": "lora_"}.get(name, "proj.base_layer")
    trained = [weight for where, weight in model.named_parameters() if part in where]  # what is restored
    move = partial(change, trained) if step is None else step(trained).step
    with pytest.warns(NoiseWarning, match=f"{name} adds no noise: call loss.. and backward.. inside of `with"):
        handle.loss(BATCH)
    before = weights(model)
    with pytest.raises(NoiseError, match="call optimizer.step.. after"), handle.perturbed():
        handle.loss(BATCH).backward()
        for weight in trained:
            weight.grad = torch.ones_like(weight)
        move()
    assert same(before, weights(model))
    with pytest.raises(ZeroDivisionError), handle.perturbed():
        change(trained)
        raise ZeroDivisionError("is not hidden")
    again = attach(model, name, total_steps=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoiseWarning)
        with again.perturbed():
            again.loss(BATCH).backward()
        handle.loss(BATCH)  # has warned
        model.eval()
        attach(model, name, total_steps=4).loss(BATCH)  # clean
    move()
    assert not same(before, weights(model))


@pytest.mark.parametrize("group", [0, 8, 24])
def test_quant_noise_is_as_wide_as_a_quantization_step(llama, group):
    model = with_lora(llama(hidden_size=64, tie_word_embeddings=False), lora_alpha=64)
    before = weights(model)
    handle = attach(model, {"name": "quant_noise", "bits": 3, "group": group}, total_steps=4)
    with handle.perturbed(step=0):
        added = moved(before, weights(model))
    assert same(weights(model), before) and len(added) == sum(
        n.endswith("base_layer") for n, _ in model.named_modules()
    )
    for name, delta in added.items():
        layer = model.get_submodule(name.removesuffix(".base_layer.weight"))
        scale = layer.lora_alpha["default"] / layer.r["default"]
        whole = layer.base_layer.weight + scale * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        whole = whole.detach().double().numpy()
        steps = np.empty_like(whole)
        size = group or whole.shape[1]
        for row in range(whole.shape[0]):
            for first in range(0, whole.shape[1], size):
                part = whole[row, first : first + size]
                steps[row, first : first + size] = (part.max() - part.min()) / 7
        z = (delta / steps).ravel()
        assert abs(z).max() <= 0.5 + 1e-3 and stats.kstest(z, stats.uniform(-0.5, 1).cdf).pvalue > 1e-6


def test_quant_noise_has_the_size_of_the_errors_it_stands_for():
    """Those of `neft-zoo evaluate --parts quantization`: rms step / sqrt(12), none above half a step."""
    weight = torch.randn(256, 3 * GROUP + 40, generator=torch.Generator().manual_seed(0))
    error = round_to_nearest(weight, 4) - weight
    steps = RoundingNoise(4, GROUP).steps(weight)
    assert (error.abs() <= steps / 2 * (1 + 1e-4)).all()
    assert (error / steps).square().mean().sqrt().item() == pytest.approx(1 / math.sqrt(12), rel=0.03)


def test_quant_noise_groups_the_inputs_of_gpt2s_transposed_weights():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2, n_positions=32))
    name, before = "transformer.h.0.mlp.c_fc.weight", weights(model)
    with attach(model, {"name": "quant_noise", "group": 0}, total_steps=1).perturbed(step=0):
        delta = moved(before, weights(model))[name]
    whole = before[name].double().numpy()
    steps = (whole.max(0) - whole.min(0)) / 15  # (inputs, outputs): a row of the layer is a column here
    assert stats.kstest((delta / steps).ravel(), stats.uniform(-0.5, 1).cdf).pvalue > 1e-6


@pytest.mark.parametrize("p", [0.25, 0.5])
def test_lora_matrix_dropout_drops_inputs_of_a_and_outputs_of_b(llama, p):
    model = with_lora(llama(hidden_size=64, tie_word_embeddings=False)).train()
    drifted(model)
    before, shares = weights(model), {"A": [], "B": []}
    handle = attach(model, {"name": "lora_matrix_dropout", "p": p}, total_steps=4)
    with handle.perturbed(step=1):
        during = weights(model)
        handle.loss(BATCH).backward()
        noisy = copy.deepcopy(model)
    got = gradients(model)
    noisy(**BATCH).loss.backward()
    inside = gradients(noisy)
    assert same(weights(model), before)
    for name in before:
        w, dropped = before[name].double().numpy(), during[name].double().numpy()
        if "lora_" not in name:
            assert np.array_equal(w, dropped), "the base stays as it is"
            continue
        side, axis = ("A", 0) if "lora_A" in name else ("B", 1)
        kept = (dropped != 0).any(axis, keepdims=True)
        np.testing.assert_allclose(dropped, w * kept / (1 - p), rtol=1e-5)
        np.testing.assert_allclose(got[name], inside[name] * kept / (1 - p), rtol=1e-4, atol=1e-9)
        shares[side].append(kept.mean())
    for found in shares.values():
        assert abs(np.mean(found) - (1 - p)) < 6 * math.sqrt(p * (1 - p) / 32 / len(found))


def test_lora_matrix_dropout_keeps_the_mean_of_the_adapter(llama):
    model = with_lora(llama(hidden_size=16)).train()
    drifted(model)
    name = "base_model.model.model.layers.0.mlp.up_proj"
    layer = model.get_submodule(name)

    def product():
        return (layer.lora_B["default"].weight @ layer.lora_A["default"].weight).detach()

    whole, handle, total = product(), attach(model, {"name": "lora_matrix_dropout", "p": 0.3}, total_steps=1000), 0
    for step in range(100):
        with handle.perturbed(step=step):
            total = total + product()
    spread = whole.abs() * math.sqrt((1 / 0.7**2 - 1) / 100)
    assert ((total / 100 - whole).abs() < 6 * spread + 1e-6).all()


def test_lora_matrix_dropout_needs_lora(llama):
    with pytest.raises(NoiseError, match="model must carry LoRA on linear layers, got none"):
        attach(llama(), "lora_matrix_dropout", total_steps=1)


@pytest.mark.parametrize("name", ["mixout", "lora_matrix_dropout", "quant_noise", "sam"])
def test_training_through_trl_leaves_no_trace_of_the_noise(llama, config, records, tokenizer, name):
    """No hook and no changed weight is left after a run, and steps draw anew."""
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM") if "lora" in name else None
    trainer = SFTTrainer(
        llama(),
        args=config(gradient_accumulation_steps=2, max_steps=2),
        train_dataset=records,
        processing_class=tokenizer,
        peft_config=lora,
        noise=name,
    )
    before = weights(trainer.model)
    trainer.train()
    assert not same(weights(trainer.model), before)
    assert not any(p._backward_hooks for p in trainer.model.parameters())
    base = [key for key in before if "lora_" not in key]
    assert lora is None or all(torch.equal(before[key], weights(trainer.model)[key]) for key in base)


@pytest.mark.parametrize("rho", [0.05, 1.0])
def test_sam_takes_the_gradient_at_weights_one_step_uphill(llama, rho):
    """Two plain backward passes, with one norm over all weights that train."""
    model = llama().double().train()
    model.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    reference, before = copy.deepcopy(model), weights(model)
    loss = attach(model, {"name": "sam", "rho": rho}, total_steps=1).loss(BATCH)
    assert same(weights(model), before), "the weights are back before the loss is differentiated"
    loss.backward()
    got = gradients(model)
    reference(**BATCH).loss.backward()
    trained = {name: p for name, p in reference.named_parameters() if p.grad is not None}
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in trained.values()))
    with torch.no_grad():
        for weight in trained.values():
            weight += rho * weight.grad / norm
    reference.zero_grad()
    expected = reference(**BATCH).loss
    expected.backward()
    assert (
        loss.item() == pytest.approx(expected.item(), rel=1e-6) and loss.item() > reference(**BATCH).loss.item() - rho
    )
    wanted = gradients(reference)
    assert got.keys() == wanted.keys()
    for name in got:
        np.testing.assert_allclose(got[name], wanted[name], rtol=1e-4, atol=1e-7)


def test_sam_climbs(llama):
    model = llama().double().train()
    plain = model(**BATCH).loss.item()
    losses = [attach(model, {"name": "sam", "rho": rho}, total_steps=1).loss(BATCH).item() for rho in (0, 0.05, 0.2)]
    assert losses[0] == pytest.approx(plain, rel=1e-6) and losses == sorted(losses) and losses[2] > plain


def test_sam_counts_a_scaled_loss_as_it_is_scaled(llama):
    found = []
    for scale in (1.0, 3.0):
        model = llama().double().train()
        (scale * attach(model, "sam", total_steps=1).loss(BATCH)).backward()
        found.append(gradients(model))
    for name in found[0]:
        np.testing.assert_allclose(3 * found[0][name], found[1][name], rtol=1e-6, atol=1e-12)


def test_sam_restores_after_an_exception(llama):
    model = llama().train()
    before, calls = weights(model), []

    def fails_second(model, inputs):
        calls.append(1)
        if len(calls) == 2:
            assert not same(weights(model), before)
            raise KeyboardInterrupt
        return model(**inputs).loss

    with pytest.raises(KeyboardInterrupt):
        attach(model, "sam", total_steps=1).loss(BATCH, compute=fails_second)
    assert same(weights(model), before)


def test_sam_refuses_weights_that_an_engine_splits(llama):
    model = llama().train()
    session = attach(model, "sam", total_steps=1).session
    engine = EngineBackward(lambda loss: None, torch.autograd.grad, "FSDP")
    step = session.step(BATCH, lambda inputs: model(**inputs).loss, key=1, accumulation=engine)
    with pytest.raises(NoiseError, match="an ascent in the weights needs whole weights, got FSDP: choose DDP"):
        session.run(step)


def test_sam_says_that_gradients_are_not_finite(llama):
    model = llama().train()
    with pytest.raises(NoiseError, match="must be finite, got a norm of nan"):
        attach(model, "sam", total_steps=1).loss(BATCH, compute=lambda model, inputs: model(**inputs).loss * math.nan)


def test_mixout_refuses_a_weight_that_starts_to_train_later(llama):
    model = llama().train()
    first = [weight for name, weight in model.named_parameters() if "layers.0" in name]
    for weight in first:
        weight.requires_grad_(False)
    handle = attach(model, "mixout", total_steps=4)
    handle.begin()
    with handle.perturbed():
        handle.loss(BATCH).backward()
    for weight in first:
        weight.requires_grad_(True)
    with pytest.raises(NoiseError, match=r"value before training of every weight, got none of model.layers.0"):
        handle.perturbed().__enter__()


@pytest.mark.parametrize("name", ["quant_noise", "flat_lora"])
def test_noise_in_the_weights_takes_the_layers_of_active_adapters(llama, name):
    model = with_lora(llama(), target_modules=["q_proj"]).train()
    model.add_adapter("other", LoraConfig(target_modules=["down_proj"], init_lora_weights=False))
    handle, before = attach(model, name, total_steps=4), weights(model)
    with handle.perturbed(step=2):
        now = weights(model)
    changed = {key for key in before if not torch.equal(before[key], now[key])}
    assert changed and not any("down_proj" in key for key in changed)


@pytest.mark.parametrize("name", ["quant_noise", "flat_lora"])
def test_noise_in_the_weights_refuses_dora(llama, name):
    with pytest.raises(NoiseError, match=f"use_dora must be false with {name}, .* got true in "):
        attach(with_lora(llama(), use_dora=True), name, total_steps=1)
    model = with_lora(llama())
    model.add_adapter("other", LoraConfig(target_modules=["q_proj"], use_dora=True))
    attach(model, name, total_steps=1)  # it is not active


@pytest.mark.parametrize("name", ["sam", "quant_noise"])
def test_weights_are_cast_again_after_a_change_inside_of_autocast(llama, name):
    """An autocast around a whole step keeps its casts of weights from one pass to the next."""

    def step(around):
        model = llama().train()
        handle = attach(model, {"name": name, **LARGE[name]}, total_steps=4)

        def compute(model, inputs):
            with contextlib.nullcontext() if around else torch.autocast("cpu", torch.bfloat16):
                return model(**inputs).loss

        with torch.autocast("cpu", torch.bfloat16) if around else contextlib.nullcontext():
            for number in range(2):
                with handle.perturbed(step=number):
                    handle.loss(BATCH, step=number, compute=compute).backward()
        return gradients(model)

    expected, found = step(around=False), step(around=True)
    assert all(np.allclose(expected[key], found[key], atol=1e-6) for key in expected)


LARGE = {"sam": {"rho": 0.5}, "quant_noise": {"bits": 2}}
