"""Loss after the weights are rounded, which are restored bit for bit."""

import pytest
import torch
from architectures import text
from peft import LoraConfig, get_peft_model
from small_subject import adapter, load
from transformers import GPT2Config, GPT2LMHeadModel

from neft_zoo import NoiseError
from neft_zoo.evaluation.losses import score, summary
from neft_zoo.evaluation.quantization import linear_layers, quantization, round_to_nearest, rounded_weights


def test_rounding_to_nearest_by_hand():
    weight = torch.linspace(-1.0, 2.0, 64)[None].repeat(2, 1)
    for bits, levels in ((4, 16), (3, 8)):
        rounded = round_to_nearest(weight, bits)
        grid = torch.linspace(-1.0, 2.0, levels)
        assert all((grid - value).abs().min() < 1e-6 for value in rounded.flatten())
        nearest = grid[(weight[..., None] - grid).abs().argmin(-1)]
        torch.testing.assert_close((rounded - weight).abs(), (nearest - weight).abs(), atol=1e-6, rtol=0)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 150, generator=generator)  # two groups of 64 and one of 22
    rounded = round_to_nearest(weight, 3)
    for row in range(3):
        for start in (0, 64, 128):
            part, found = weight[row, start : start + 64], rounded[row, start : start + 64]
            step = (part.max() - part.min()) / 7
            assert len(found.unique()) <= 8 and (found - part).abs().max() <= step / 2 + 1e-6
    assert torch.equal(round_to_nearest(torch.full((2, 70), 0.3), 4), torch.full((2, 70), 0.3))


def states(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("kind", ["full", "LoRA", "Conv1D"])
def test_weights_are_rounded_inside_the_block_and_restored_bit_for_bit(kind):
    if kind == "Conv1D":
        numbers = dict(n_embd=32, n_layer=2, n_head=2, vocab_size=50, n_positions=16)
        model = GPT2LMHeadModel(GPT2Config(**numbers))
    else:
        model = text("llama") if kind == "full" else adapter(text("llama"))
    before, ids = states(model.eval()), torch.arange(3, 12)[None]
    clean = model(ids).logits
    with rounded_weights(model, lambda weight: round_to_nearest(weight, 3)):
        inside = states(model)
        assert not torch.allclose(model(ids).logits, clean)
    assert before.keys() == states(model).keys()
    assert all(torch.equal(value, before[name]) for name, value in states(model).items())
    assert torch.equal(model(ids).logits, clean), "adapters are active again"
    changed = {name for name in before if not torch.equal(inside[name], before[name])}
    assert changed and not any(
        word in name for name in changed for word in ("embed", "wte", "lm_head", "norm", "lora")
    )
    if kind == "Conv1D":
        assert len(changed) == 2 * 4
        name = "transformer.h.0.attn.c_attn.weight"
        torch.testing.assert_close(inside[name], round_to_nearest(before[name].T, 3).T)
    with pytest.raises(ZeroDivisionError), rounded_weights(model, lambda weight: 1 / 0):
        pass
    assert all(torch.equal(value, before[name]) for name, value in states(model).items()), "after an error too"


@pytest.mark.parametrize(
    "adapts", [{"target_modules": ["q_proj", "embed_tokens", "lm_head"]}, {"modules_to_save": ["lm_head"]}]
)
def test_an_adapted_head_is_not_rounded_and_all_is_restored_bit_for_bit(adapts):
    torch.manual_seed(0)
    settings = {"r": 4, "target_modules": ["q_proj"], "init_lora_weights": False, **adapts}
    model = get_peft_model(text("llama"), LoraConfig(**settings)).eval()
    before = states(model)
    with rounded_weights(model, lambda weight: round_to_nearest(weight, 3)):
        inside = states(model)
    assert all(torch.equal(value, before[name]) for name, value in states(model).items())
    heads = [name for name in inside if "lm_head" in name and inside[name].dim() == 2]
    assert heads and not any(torch.allclose(inside[name], round_to_nearest(inside[name], 3)) for name in heads)
    query = next(name for name in inside if "q_proj.base_layer.weight" in name)
    torch.testing.assert_close(inside[query], round_to_nearest(inside[query], 3))


def test_experts_in_one_weight_are_refused():
    """Their rounding would be left out, which is most of the model's."""
    with pytest.raises(NoiseError, match="whose weights are in linear layers, got .*experts.*, which stacks them"):
        linear_layers(text("mixtral"))


def test_fewer_bits_cost_more_and_an_adapter_is_rounded_merged(subject):
    found = quantization(subject, subject.rows["test"])
    assert found.rtn3.change > found.rtn4.change and found.layers == len(linear_layers(subject.model)) > 0
    assert found.clean_loss == summary(score(subject, subject.rows["test"])).loss
    assert found.rtn4.loss - found.rtn4.change == pytest.approx(found.clean_loss)
    pytest.importorskip("bitsandbytes")
    assert 0 < abs(found.nf4.change) < found.rtn3.change
    adapted, merged = adapter(load()), adapter(load()).merge_and_unload()
    one, other = (quantization(subject.with_model(m), subject.rows["test"]) for m in (adapted, merged))
    assert one.rtn3.loss == pytest.approx(other.rtn3.loss, abs=1e-5)


def test_weights_that_are_quantized_already_are_refused():
    model = text("llama")
    model.get_decoder().layers[0].mlp.up_proj.weight = torch.nn.Parameter(
        torch.zeros(4, 1, dtype=torch.uint8), requires_grad=False
    )
    with pytest.raises(NoiseError, match="got torch.uint8: they are quantized already"):
        linear_layers(model)
