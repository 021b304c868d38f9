"""The hash is SplitMix64, and what is drawn from it has the distributions that it says."""

import math

import pytest
import torch
from scipy import stats

from neft_zoo.noise import randomness
from neft_zoo.noise.blocks import BLOCK

MASK = (1 << 64) - 1


def splitmix64(seed, count):
    """SplitMix64 in plain integers."""
    out = []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & MASK
        z = ((seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        out.append(z ^ (z >> 31))
    return out


@pytest.mark.parametrize("seed", [0, 1, 1234567, MASK, 1 << 63])
def test_bits_are_splitmix64(seed):
    signed = seed - (1 << 64) if seed >> 63 else seed
    drawn = [value & 0xFFFFFFFF for value in randomness.bits(torch.tensor([signed]), 9)[0].tolist()]
    halves = [half for value in splitmix64(seed, 5) for half in (value & 0xFFFFFFFF, value >> 32)]
    assert drawn == halves[:9]


def test_the_first_output_for_seed_0_is_the_published_one():
    assert splitmix64(0, 1) == [0xE220A8397B1DCDAF]


KEYS = randomness.mix(torch.arange(2000))
KINDS = {
    "uniform": (randomness.uniform, stats.uniform(-1, 2).cdf),
    "normal": (randomness.normal, stats.norm.cdf),
    "laplace": (randomness.laplace, stats.laplace(scale=math.sqrt(0.5)).cdf),
}


@pytest.mark.parametrize("kind", KINDS)
def test_draws_have_their_distribution(kind):
    draw, cdf = KINDS[kind]
    values = draw(KEYS, 50).flatten()
    assert values.dtype == torch.float32 and values.isfinite().all()
    assert stats.kstest(values.numpy(), cdf).pvalue > 1e-3


@pytest.mark.parametrize("draw", [randomness.uniform, randomness.normal, randomness.laplace, randomness.signs])
def test_draws_are_independent(draw):
    values = draw(KEYS, 64).double()
    bound = 6 / math.sqrt(len(KEYS))
    features = torch.corrcoef(values.T) - torch.eye(64)
    assert features.abs().max() < bound
    neighbours = (values[1:] * values[:-1]).mean(0) / values.square().mean()
    assert neighbours.abs().max() < bound
    squares = torch.corrcoef(torch.stack([values[:, 0].square(), values[:, 1].square() + values[:, 2] * 1e-9]))
    assert squares.nan_to_num()[0, 1].abs() < bound


def test_uniform_is_symmetric_and_within_its_bounds():
    values = randomness.uniform(KEYS, 200)
    odd = values.double() * 2**23
    assert (odd % 2 == 1).all() and odd.abs().max() <= 2**23 - 1
    assert 0.9999 < values.abs().max() < 1 and not (values == 0).any()


@pytest.mark.parametrize("half", ["high", "low"])
def test_dither_is_uniform_and_pairwise_independent(half):
    """In 16 bits at either end: of one number, of two features of a position, of two positions."""
    width = 64
    drawn = randomness.dither(KEYS, randomness.features(width, torch.device("cpu")))
    assert drawn.shape == (len(KEYS), width) and drawn.dtype == torch.int32
    values = ((drawn >> 16 if half == "high" else drawn) & 0xFFFF).double().add(0.5).div(1 << 16)
    assert stats.kstest(values.flatten().numpy(), "uniform").pvalue > 1e-3
    for one, other in ((values[:, :-1], values[:, 1:]), (values[:-1], values[1:]), (values[:, :32], values[:, 32:])):
        counts = torch.histogramdd(torch.stack([one.flatten(), other.flatten()], 1).float(), bins=[16, 16]).hist
        assert stats.chisquare(counts.flatten().numpy()).pvalue > 1e-3
    correlation = torch.corrcoef(values.T) - torch.eye(width)
    assert correlation.abs().max() < 6 / math.sqrt(len(KEYS))


@pytest.mark.parametrize("draw", [randomness.uniform, randomness.normal, randomness.laplace, randomness.signs])
@pytest.mark.parametrize("width", [1, 7, 64])
def test_blocks_change_no_number(draw, width, monkeypatch):
    keys = KEYS.view(40, 50)
    whole = draw(keys, width)
    monkeypatch.setitem(BLOCK, "cpu", 300)
    assert whole.shape == (40, 50, width) and torch.equal(draw(keys, width), whole)


def test_unit_is_strictly_between_0_and_1():
    values = randomness.unit(torch.arange(100000))
    assert 0 < values.min() and values.max() < 1 and abs(values.mean() - 0.5) < 0.01


def test_signs_are_fair():
    values = randomness.signs(KEYS, 50)
    assert set(values.unique().tolist()) == {-1.0, 1.0}
    assert abs(values.mean()) < 6 / math.sqrt(values.numel())


def test_streams_and_keys_differ():
    names = ["what", "where", "rounding", "layer 0", "layer 1"]
    drawn = [randomness.stream(KEYS, name) for name in names]
    assert len(torch.cat(drawn).unique()) == len(names) * len(KEYS)
    assert randomness.key_of("step", 1, 23) != randomness.key_of("step", 12, 3)


def test_logical_shift_fills_with_zeros():
    assert randomness.logical_shift(torch.tensor([-1]), 60).item() == 15
