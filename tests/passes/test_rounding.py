"""Adding noise: block by block, and to 16-bit numbers without losing it."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from neft_zoo import make
from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.batch import Batch
from neft_zoo.noise.blocks import BLOCK
from neft_zoo.noise.data_dependent import ByFrequency, MetricLaplace, Projected, Setup
from neft_zoo.noise.distributions import Gaussian, Sphere, Uniform
from neft_zoo.noise.scales import Fixed
from neft_zoo.passes.adding import add_drawn, add_rounded

IDS = torch.arange(5, 17).view(2, 6)
COUNTS = torch.arange(20)


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


@pytest.mark.parametrize("size", [0.1, 0.3, 0.9, 1.3])
def test_energies_vary_as_if_every_coordinate_were_rounded_on_its_own(size):
    """Noise of one magnitude, in steps: the energy of a position, and that of a feature over positions."""
    rows, width, step = 2048, 512, 2**-8
    batch = Batch.from_inputs({"input_ids": torch.arange(rows)[None]}, key=3)
    generator = torch.Generator().manual_seed(0)
    embeds = (torch.rand(1, rows, width, generator=generator) * 0.4 + 0.55).to(torch.bfloat16)  # steps of 2**-8
    delta = (torch.randint(2, embeds.shape, generator=generator) * 2 - 1) * size * step
    energy = ((add_rounded(embeds, delta, batch).float() - embeds.float()) / step).square()[0]
    inner, outer = math.floor(size) ** 2, math.ceil(size) ** 2
    variance = (size**2 - inner) * (outer - size**2)
    assert energy.mean().item() == pytest.approx(size**2, rel=6 * math.sqrt(variance / energy.numel()) / size**2)
    for along, others in ((1, 0), (0, 1)):
        ratio = energy.sum(along).var() / (energy.shape[along] * variance)
        assert ratio.item() == pytest.approx(1, abs=6 * math.sqrt(2 / energy.shape[others]))


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
    monkeypatch.setitem(BLOCK, "cpu", 70)
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
    monkeypatch.setitem(BLOCK, "cpu", 70)
    parts, _ = add_drawn(embeds, noise, batch)
    (gradient,) = torch.autograd.grad((parts.float() * weights).sum(), embeds)
    assert torch.equal(parts, whole) and torch.equal(gradient, expected)
    assert not torch.equal(gradient, weights.to(dtype))


def test_noise_that_looks_around_is_drawn_as_a_whole():
    batch = Batch.from_inputs({"input_ids": IDS}, key=5)
    assert add_drawn(torch.randn(*IDS.shape, 8), make("cutoff_span").noise, batch) is None


class _Twice:
    """What a user's own noise or distribution does that draws as another one and then in its own way."""

    def __call__(self, *args):
        return super().__call__(*args) * 2


NOISES = {
    "distribution": AdditiveNoise(type("Own", (_Twice, Gaussian), {})(), Fixed(0.1)),
    "additive": type("Own", (_Twice, AdditiveNoise), {"pointwise": True})(Gaussian(), Fixed(0.1)),
    "laplace": type("Own", (_Twice, MetricLaplace), {})(100.0),
    "sphere": AdditiveNoise(type("Own", (_Twice, Sphere), {})(), Fixed(0.1)),
    "projected": type("Own", (_Twice, Projected), {})(AdditiveNoise(Gaussian(), Fixed(0.1)), 4, "off").prepare(
        Setup(torch.eye(33), None)
    ),
    "frequency": type("Own", (_Twice, ByFrequency), {})(0.1, 0.5).prepare(Setup(torch.ones(20, 33), lambda: COUNTS)),
}


@pytest.mark.parametrize("kind", NOISES)
def test_what_overrides_a_draw_is_drawn_by_it_in_every_block(kind, monkeypatch):
    noise, batch = NOISES[kind], Batch.from_inputs({"input_ids": IDS}, key=5)
    embeds = torch.zeros(*IDS.shape, 33)
    monkeypatch.setitem(BLOCK, "cpu", 70)
    drawn = add_drawn(embeds, noise, batch)
    assert noise(embeds, batch).any() and (drawn is None or torch.equal(drawn[0], noise(embeds, batch)))


class _Operators(TorchDispatchMode):
    """Counts the operators that are called."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("name", ["neft_uniform", "neft_gaussian", "token_relative", "neft_sphere", "dx_laplace"])
def test_blocks_do_not_repeat_what_can_be_done_once(name, monkeypatch):
    """An operator takes microseconds however small its tensors are, and blocks are many."""
    noise, batch = make(name).noise, Batch.from_inputs({"input_ids": IDS}, key=5)
    embeds, counts = torch.zeros(*IDS.shape, 64), []
    for rows in (6, 3):
        monkeypatch.setitem(BLOCK, "cpu", rows * 64 // torch.get_num_threads())
        with _Operators() as operators:
            add_drawn(embeds, noise, batch)
        counts.append(operators.count)
    two, four = counts
    assert 0 < (four - two) / 2 < 75
