"""Oracles of noise on weights, written from the papers; the weights are read inside the step, from outside.

noisy_tune           Wu et al., arXiv 2202.12024, equation 1: W + U[-lambda/2, lambda/2] std(W), once
flat_lora            Li et al., arXiv 2409.14396, equation 7, and FlatLoraTrainer of the authors' logTrainer.py:
                     N(0, f^2 rho^2 |w_i|^2 / n) on rows w_i of W + s B A, f = (1 - cos(pi t / T)) / 2
mixout               Lee et al., arXiv 1909.11299, and the authors' mixout.py: one Bernoulli draw per input of a layer,
                     for all of its outputs; the gradient is that of the formula, as the page says
quant_noise          Zhelnin et al., arXiv 2408.15300, section 3.2, equation 5: half a step times N(0, 1). The page has
                     the error of rounding instead, U[-1/2, 1/2] times the step of a group's range.
lora_matrix_dropout  Lin et al., arXiv 2404.09610: A diag(m_A) and diag(m_B) B; divided by 1 - p as the page says
"""

import math

import pytest
import torch
from observed_draws import agree, alone, likely, run, small, uncorrelated, weights
from scipy import stats
from small_models import same, with_lora

SCALING = 3.0
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def lora(llama, **config):
    """Return an adapted float64 model in which B A is as large as W."""
    return with_lora(small(llama, **config), lora_alpha=4 * SCALING).double().train()


def through(expected, factors):
    """Return an oracle's loss and gradients with those of some weights multiplied, as the chain rule does."""
    loss, slopes = expected
    return loss, {name: slope * factors.get(name, 1) for name, slope in slopes.items()}


def merged(values):
    """Return for each adapted weight's name its merged weights: W + s B A."""
    of = {name[: -len(".base_layer.weight")]: name for name in values if name.endswith(".base_layer.weight")}
    part = {stem: [values[f"{stem}.lora_{x}.default.weight"] for x in "BA"] for stem in of}
    return {name: values[name] + SCALING * part[stem][0] @ part[stem][1] for stem, name in of.items()}


def noise_of(before, during):
    """Return what was added to each weight that is not the same."""
    return {name: during[name] - before[name] for name in before if not torch.equal(during[name], before[name])}


def joined(noises):
    return torch.cat([noise.flatten() for noise in noises.values()])


def share(zeros, p):
    """Check that as many of the booleans are true as of Bernoulli draws, within 4.5 sigma."""
    assert abs(zeros.double().mean() - p) < 4.5 * (p * (1 - p) / zeros.numel()) ** 0.5


def begun(model):
    """Return the weights before and after what is done once, and what two later steps saw."""
    before, after = weights(model), {}

    def once(handle):
        handle.begin()
        after.update(weights(model))

    steps = run(model, {"name": "noisy_tune", "strength": 0.2}, steps=(0, 3), first=once)
    return before, after, steps


@pytest.mark.parametrize("make", [small, pytest.param(lora, marks=pytest.mark.slow)])
def test_noisy_tune_adds_uniform_noise_once_in_proportion_to_each_matrix(llama, make):
    model = make(llama)
    before, after, steps = begun(model)
    noises = noise_of(before, after)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad and weight.dim() == 2}
    assert noises.keys() == trained
    unit = {name: noise / (0.2 * before[name].std()) for name, noise in noises.items()}
    for z in unit.values():
        likely(z, stats.uniform(-0.5, 1))
    assert joined(unit).abs().max() <= 0.5
    for seen in steps:
        assert same(seen.weights, after)
        agree(seen, alone(model, values=after))


@pytest.mark.parametrize("step", [pytest.param(2, marks=pytest.mark.slow), 5, pytest.param(9, marks=pytest.mark.slow)])
def test_flat_lora_noise_is_in_proportion_to_the_merged_rows_and_grows(llama, step):
    model = lora(llama)
    before = weights(model)
    (seen,) = run(model, {"name": "flat_lora", "rho": 0.05}, steps=(step,))
    noises, rows = noise_of(before, seen.weights), merged(before)
    assert noises.keys() == rows.keys()
    factor = (1 - math.cos(math.pi * step / 10)) / 2
    z = {
        name: noise / (factor * 0.05 * rows[name].norm(dim=1, keepdim=True) / noise.shape[1] ** 0.5)
        for name, noise in noises.items()
    }
    likely(joined(z), stats.norm)
    for n in (16, 32):
        sums = torch.cat([value.square().sum(1) for value in z.values() if value.shape[1] == n])
        likely(sums, stats.chi2(n))
    same_shape = [value for value in z.values() if value.shape == (16, 16)]
    uncorrelated(torch.stack(same_shape[1:]), torch.stack(same_shape[:-1]))
    agree(seen, alone(model, values=seen.weights))
    assert same(weights(model), before)


@pytest.mark.slow
def test_flat_lora_begins_without_noise(llama):
    model = lora(llama)
    before = weights(model)
    (seen,) = run(model, "flat_lora", steps=(0,))
    assert same(seen.weights, before)


def fine_tune(model):
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        weight.data += 0.01 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)


@pytest.mark.parametrize("p", [pytest.param(0.3, marks=pytest.mark.slow), 0.7])
def test_mixout_resets_inputs_of_layers_to_their_pretrained_weights(llama, p):
    model, masks = small(llama), []
    pretrained = weights(model)
    steps = run(model, {"name": "mixout", "p": p}, steps=range(2), first=lambda _: fine_tune(model))
    tuned = weights(model)
    apart = {name: tuned[name] - pretrained[name] for name in tuned}
    for seen in steps:
        factors = {}
        for name in noise_of(tuned, seen.weights):
            kept = ((seen.weights[name] - pretrained[name]) / apart[name])[0] > 0.5
            factors[name] = kept.double() / (1 - p)
            expected = pretrained[name] + factors[name] * apart[name]
            torch.testing.assert_close(seen.weights[name], expected, rtol=1e-6, atol=1e-8)
            masks.append(kept)
        assert factors.keys() == {name for name in tuned if name.split(".")[-2] in TARGETS}
        agree(seen, through(alone(model, values=seen.weights), factors), dict(rtol=1e-6, atol=1e-9))
    share(~torch.cat(masks), p)
    assert len({tuple(mask.tolist()) for mask in masks}) > 0.9 * len(masks)
    expected = small(llama)
    fine_tune(expected)
    assert same(tuned, weights(expected))


def steps_of(values, group, bits):
    """Return the quantization step of each weight: the range of its group in a row over 2^b - 1."""
    size = group or values.shape[1]
    parts = values.split(size, dim=1)
    ranges = [part.amax(1, keepdim=True) - part.amin(1, keepdim=True) for part in parts]
    return torch.cat([r.expand_as(p) for r, p in zip(ranges, parts, strict=True)], 1) / (2**bits - 1)


@pytest.mark.parametrize(
    ("group", "bits"),
    [
        pytest.param(0, 4, marks=pytest.mark.slow),
        pytest.param(8, 3, marks=pytest.mark.slow),
        (5, 4),
        pytest.param(128, 2, marks=pytest.mark.slow),
    ],
)
def test_quantization_noise_is_uniform_within_half_a_step_of_its_group(llama, group, bits):
    model = lora(llama)
    before = weights(model)
    (seen,) = run(model, {"name": "quant_noise", "group": group, "bits": bits})
    noises, values = noise_of(before, seen.weights), merged(before)
    assert noises.keys() == values.keys()
    unit = {name: noise / steps_of(values[name], group, bits) for name, noise in noises.items()}
    z = joined(unit)
    z = z[z.isfinite()]  # a group of one weight has no step
    assert 0.499 < z.abs().max() <= 0.5 * (1 + 1e-6)
    likely(z, stats.uniform(-0.5, 1))
    agree(seen, alone(model, values=seen.weights))
    assert same(weights(model), before)


@pytest.mark.parametrize(("p", "steps"), [(0.5, 1), pytest.param(0.2, 4, marks=pytest.mark.slow)])
def test_lora_dropout_drops_inputs_of_a_and_outputs_of_b(llama, p, steps):
    model = lora(llama)
    before, masks = weights(model), {"A": [], "B": []}
    for seen in run(model, {"name": "lora_matrix_dropout", "p": p}, steps=range(steps)):
        factors = {}
        for name in noise_of(before, seen.weights):
            which = name.split(".lora_")[1][0]
            factor = seen.weights[name] / before[name]
            kept = (factor[0] if which == "A" else factor[:, 0]) > 0.5
            factors[name] = (kept if which == "A" else kept[:, None]).double() / (1 - p)
            torch.testing.assert_close(factor, factors[name].expand_as(factor), rtol=1e-9, atol=0)
            masks[which].append(kept)
        assert factors.keys() == {name for name in before if "lora_" in name}
        agree(seen, through(alone(model, values=seen.weights), factors))
    for drawn in masks.values():
        share(~torch.cat(drawn), p)
        assert len({tuple(mask.tolist()) for mask in drawn}) > 0.9 * len(drawn)
    assert same(weights(model), before)
