"""flat_lora: the base weights tremble during every pass and are restored bit for bit."""

import copy
import math

import pytest
import torch
from peft import LoraConfig
from scipy import stats
from selection import quick
from small_models import moved, same, weights, with_lora
from transformers import TrainerCallback

from neft_zoo import SFTTrainer, attach

IDS = torch.arange(5, 29).view(4, 6)
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": IDS.clone()}
RISE = [0.0, 0.146447, 0.5, 0.853553, 1.0]


def rows(weight):
    return weight.detach().double().norm(dim=1, keepdim=True).numpy()


def merged(model, name):
    """Return W + BA of an adapted layer, by hand."""
    layer = model.get_submodule(name)
    scale = layer.lora_alpha["default"] / layer.r["default"]
    return layer.base_layer.weight + scale * layer.lora_B["default"].weight @ layer.lora_A["default"].weight


@pytest.mark.parametrize(("step", "rise"), list(enumerate(RISE)))
def test_flat_lora_perturbs_the_base_by_the_merged_rows(llama, step, rise):
    """Noise of variance (rise * rho * |row of W + BA| / sqrt(n_in))^2."""
    model = with_lora(llama(hidden_size=128, tie_word_embeddings=False), lora_alpha=64)
    layers = [n.removesuffix(".base_layer") for n, m in model.named_modules() if n.endswith("base_layer")]
    before = weights(model)
    with attach(model, {"name": "flat_lora", "rho": 0.3}, total_steps=4).perturbed(step=step):
        during = weights(model)
    added = moved(before, during)
    assert set(added) == ({f"{name}.base_layer.weight" for name in layers} if step else set())
    for name in layers if step else ():
        whole, delta = merged(model, name), added[f"{name}.base_layer.weight"]
        size = rise * 0.3 * rows(whole) / math.sqrt(whole.shape[1])
        assert stats.kstest((delta / size).ravel(), stats.norm.cdf).pvalue > 1e-6
        wrong = rise * 0.3 * rows(model.get_submodule(name).base_layer.weight) / math.sqrt(whole.shape[1])
        assert stats.kstest((delta / wrong).ravel(), stats.norm.cdf).pvalue < 1e-6, "the adapter counts"
    assert same(weights(model), before)


@pytest.mark.parametrize("adapter", quick([False, True], True))
def test_flat_lora_restores_every_bit_after_200_cycles_in_bf16(llama, adapter):
    model = llama().to(torch.bfloat16)
    model = with_lora(model) if adapter else model
    before, drifted = weights(model), llama().to(torch.bfloat16).lm_head.weight.detach().clone()
    handle = attach(model, {"name": "flat_lora", "rho": 0.3}, total_steps=200)
    for step in range(200):
        with handle.perturbed(step=step):
            assert step == 0 or not same(weights(model), before)
        noise = (torch.randn_like(drifted.float()) * 0.3 * drifted.float().std()).to(torch.bfloat16)
        drifted = drifted + noise - noise
    assert same(weights(model), before)
    assert not torch.equal(drifted, llama().to(torch.bfloat16).lm_head.weight), "adding and subtracting would drift"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_flat_lora_restores_after_an_exception(llama, error):
    model = with_lora(llama())
    before = weights(model)
    handle = attach(model, "flat_lora", total_steps=2)
    with pytest.raises(error), handle.perturbed(step=1):
        assert not same(weights(model), before)
        raise error
    assert same(weights(model), before)


def test_the_gradient_is_that_of_the_noisy_weights(llama):
    model = with_lora(llama()).train()
    handle = attach(model, {"name": "flat_lora", "rho": 0.5}, total_steps=4)
    with handle.perturbed(step=2):
        noisy = copy.deepcopy(model)
        handle.loss(BATCH).backward()
    noisy(**BATCH).loss.backward()
    for (name, one), other in zip(model.named_parameters(), noisy.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        assert one.grad is None or torch.equal(one.grad, other.grad), name


def test_a_loop_of_ones_own_counts_the_steps_of_the_noise(llama):
    model = with_lora(llama()).train()
    name = "base_model.model.model.layers.0.mlp.up_proj.base_layer.weight"
    before, sizes = model.get_parameter(name).detach().clone(), []
    handle = attach(model, "flat_lora", total_steps=4)
    handle.begin()
    for _ in range(4):
        with handle.perturbed():
            sizes.append((model.get_parameter(name) - before).std().item())
            handle.loss(BATCH).backward()
    assert [size / sizes[2] * 0.5 for size in sizes] == pytest.approx(RISE[:4], rel=0.1)
    with handle.perturbed(step=1):
        assert (model.get_parameter(name) - before).std().item() == sizes[1]


class Watch(TrainerCallback):
    """Records the weights of every forward pass and after every step."""

    def __init__(self):
        self.during, self.after, self.evaluated = [], [], []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.before = weights(model)
        model.register_forward_pre_hook(
            lambda m, args: (self.during if m.training else self.evaluated).append(weights(m))
        )

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.after.append(weights(model))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_through_trl_moves_and_restores_the_base(llama, config, records, tokenizer, checkpointing):
    watch = Watch()
    trainer = SFTTrainer(
        llama(hidden_size=64, tie_word_embeddings=False),
        args=config(gradient_accumulation_steps=2, gradient_checkpointing=checkpointing, eval_strategy="steps"),
        train_dataset=records,
        eval_dataset=records.select(range(4)),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
        noise={"name": "flat_lora", "rho": 0.3},
        callbacks=[watch],
    )
    trainer.train()
    assert watch.evaluated and len(watch.after) == 4
    base = [name for name in watch.before if "lora_" not in name]
    for state in (*watch.after, *watch.evaluated, weights(trainer.model)):
        assert all(torch.equal(state[name], watch.before[name]) for name in base)
    name = next(name for name in base if "up_proj" in name)
    noise = [(state[name] - watch.before[name]) for state in watch.during]
    assert len(noise) == 8 and all(torch.equal(a, b) for a, b in zip(noise[::2], noise[1::2], strict=True))
    rms = watch.before[name].square().mean().sqrt().item()
    assert [n.std().item() / rms / 0.3 for n in noise[::2]] == pytest.approx(RISE[:4], rel=0.1, abs=1e-9)
    assert abs(torch.corrcoef(torch.stack([n.flatten() for n in noise[2::2]])) - torch.eye(3)).max() < 0.1
