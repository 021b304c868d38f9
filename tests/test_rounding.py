"""Adding noise: block by block, and to 16-bit numbers without losing it."""

import math

import pytest
import torch

from neft_zoo import make, randomness
from neft_zoo.batch import Batch
from neft_zoo.distributions import Uniform
from neft_zoo.rounding import add_drawn, add_rounded

IDS = torch.arange(5, 17).view(2, 6)


@pytest.fixture
def batch():
    return Batch.from_inputs({"input_ids": IDS}, key=1)


@pytest.mark.cell("Mistakes of neftune_noise_alpha", "noise lost in bf16 rounding")
@pytest.mark.cell("Precision", "embeddings of std {std:g} in bf16: rms and mean of small noise")
@pytest.mark.parametrize("length", [128, 512, 2048, 8192, 32768])
@pytest.mark.parametrize("std", [0.02, 0.1, 1.0])
def test_bf16_keeps_mean_and_rms_of_small_noise(length, std):
    """alpha 5 at 4,096 features, where rounding to nearest loses up to 93 % of the coordinates."""
    rows, width = 128, 4096
    batch = Batch.from_inputs({"input_ids": torch.arange(rows)[None]}, key=length)
    embeds = (torch.randn(1, rows, width, generator=torch.Generator().manual_seed(0)) * std).to(torch.bfloat16)
    delta = Uniform()(batch, width) * 5 / math.sqrt(length * width)
    added = add_rounded(embeds, delta, batch).float() - embeds.float()
    assert (added.square().mean() / delta.square().mean()).sqrt().item() == pytest.approx(1, abs=0.02)
    assert abs(added.mean().item()) < 6 * added.std().item() / math.sqrt(delta.numel())
    assert (added * delta).sum() > 0
    nearest = (embeds + delta.to(torch.bfloat16)).float() - embeds.float()
    if std == 1.0:
        assert (nearest == 0).float().mean() > 0.2, "the case is one where rounding to nearest does lose noise"


def test_opposite_noise_is_rounded_to_opposite_sides(batch):
    embeds = (torch.rand(2, 6, 8) * 0.4 + 0.55).to(torch.bfloat16)  # between two powers of 2: even steps
    delta = torch.randn(2, 6, 8) * 1e-3
    plus, minus = (add_rounded(embeds, sign * delta, batch).float() - embeds.float() for sign in (1, -1))
    assert torch.equal(plus, -minus) and plus.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_zero_delta_changes_no_bit(dtype, batch):
    embeds = torch.randn(2, 6, 8).to(dtype)
    noisy = add_rounded(embeds, torch.zeros(2, 6, 8), batch)
    assert noisy.dtype == dtype and torch.equal(noisy, embeds)


def test_the_gradient_passes_through_the_rounding(batch):
    embeds = torch.randn(2, 6, 8).to(torch.bfloat16).requires_grad_()
    delta = torch.randn(2, 6, 8).requires_grad_()
    add_rounded(embeds, delta, batch).sum().backward()
    assert (embeds.grad == 1).all() and (delta.grad == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["neft_uniform", "neft_gaussian", "token_relative", "dx_laplace", "neft_sphere"])
def test_adding_block_by_block_is_adding_the_whole(name, dtype, monkeypatch):
    noise, batch = make(name).noise, Batch.from_inputs({"input_ids": IDS}, key=5)
    embeds = torch.randn(*IDS.shape, 33, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    delta = noise(embeds, batch)
    whole = add_rounded(embeds, delta, batch)
    monkeypatch.setitem(randomness.BLOCK, "cpu", 70)
    parts, norms = add_drawn(embeds, noise, batch)
    assert torch.equal(parts, whole) and torch.equal(add_rounded(embeds, delta, batch), whole)
    torch.testing.assert_close(norms, delta.norm(dim=-1))
    weights = torch.randn(parts.shape)
    (gradient,) = torch.autograd.grad((parts.float() * weights).sum(), embeds)
    assert torch.equal(gradient, weights.to(dtype)), "the noise passes none"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["embedding_dropout", "token_dropout"])
def test_noise_made_of_the_embeddings_passes_gradients_block_by_block(name, dtype, monkeypatch):
    noise, batch = make(name, p=0.4).noise, Batch.from_inputs({"input_ids": IDS}, key=5)
    embeds = torch.randn(*IDS.shape, 33, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    weights = torch.randn(*IDS.shape, 33)
    whole = add_rounded(embeds, noise(embeds, batch), batch)
    (expected,) = torch.autograd.grad((whole.float() * weights).sum(), embeds)
    monkeypatch.setitem(randomness.BLOCK, "cpu", 70)
    parts, _ = add_drawn(embeds, noise, batch)
    (gradient,) = torch.autograd.grad((parts.float() * weights).sum(), embeds)
    assert torch.equal(parts, whole) and torch.equal(gradient, expected)
    assert not torch.equal(gradient, weights.to(dtype))


def test_noise_that_looks_around_is_drawn_as_a_whole():
    batch = Batch.from_inputs({"input_ids": IDS}, key=5)
    assert add_drawn(torch.randn(*IDS.shape, 8), make("cutoff_span").noise, batch) is None
