"""Every entry passes the public suite, and the suite finds the mistakes seen in public code."""

import dataclasses
import math
from dataclasses import dataclass

import pytest
import torch

import neft_zoo
from neft_zoo.noise import randomness
from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.distributions import Gaussian, Rademacher, Uniform
from neft_zoo.noise.scales import ByLength, Fixed
from neft_zoo.registry.strategy import Strategy
from neft_zoo.testing import check_strategy


@pytest.mark.parametrize("name", neft_zoo.names())
def test_entry_conforms(name):
    check_strategy(name, max_examples=8)


@pytest.mark.slow
@pytest.mark.parametrize("name", neft_zoo.names())
def test_entry_conforms_on_many_batches(name):
    check_strategy(name, max_examples=400)


def test_a_strategy_of_ones_own_conforms():
    check_strategy(Strategy(AdditiveNoise(Gaussian(0.5), Fixed(0.1))))


@dataclass(frozen=True)
class OneSided(Uniform):
    def __call__(self, batch, width):
        return (super().__call__(batch, width) + 1) / 2


@dataclass(frozen=True)
class Half(Uniform):
    def __call__(self, batch, width):
        return super().__call__(batch, width) / 2


@dataclass(frozen=True)
class VarianceAsDeviation(Gaussian):
    def __call__(self, batch, width):
        return super().__call__(batch, width) * self.rms


@dataclass(frozen=True)
class GlobalRandom(Uniform):
    def __call__(self, batch, width):
        return torch.rand(*batch.input_ids.shape, width) * 2 - 1


@dataclass(frozen=True)
class ByPlace(Uniform):
    """Numbers that depend on where in the batch a document lies."""

    def __call__(self, batch, width):
        place = torch.arange(batch.input_ids.numel()).view_as(batch.input_ids)
        return randomness.uniform(randomness.mix(place + int(batch.keys.flatten()[0])), width)


@dataclass(frozen=True)
class PaddedLength(ByLength):
    def __call__(self, embeds, batch):
        return super().__call__(embeds, dataclasses.replace(batch, lengths=torch.full_like(batch.lengths, 40)))


@dataclass(frozen=True)
class WithoutWidth(ByLength):
    def __call__(self, embeds, batch):
        return super().__call__(embeds, batch) * math.sqrt(embeds.shape[-1])


@dataclass(frozen=True)
class Squared(ByLength):
    def __call__(self, embeds, batch):
        return super().__call__(embeds, batch) ** 2


@dataclass(frozen=True)
class Everywhere:
    def __call__(self, batch):
        return torch.ones_like(batch.real).float()


@dataclass(frozen=True)
class LowPrecision(AdditiveNoise):
    def __call__(self, embeds, batch):
        return super().__call__(embeds, batch).to(embeds.dtype)


@dataclass(frozen=True)
class Nothing(AdditiveNoise):
    """Alpha accepted and ignored."""

    def __call__(self, embeds, batch):
        return super().__call__(embeds, batch) * 0


MISTAKES = {
    "U[0, 1)": AdditiveNoise(OneSided(), ByLength(5)),
    "U(-.5, .5)": AdditiveNoise(Half(), ByLength(5)),
    "variance for deviation": AdditiveNoise(VarianceAsDeviation(0.5), ByLength(5)),
    "global random state": AdditiveNoise(GlobalRandom(), ByLength(5)),
    "depends on neighbours": AdditiveNoise(ByPlace(), ByLength(5)),
    "constant length": AdditiveNoise(Uniform(), PaddedLength(5)),
    "padded length": AdditiveNoise(Gaussian(), ByLength(5, "padded")),
    "width left out": AdditiveNoise(Uniform(), WithoutWidth(5)),
    "alpha squared": AdditiveNoise(Rademacher(), Squared(5)),
    "noise on padding": AdditiveNoise(Uniform(), ByLength(5), Everywhere()),
    "rounded before it is added": LowPrecision(Uniform(), ByLength(5)),
    "alpha ignored": Nothing(Uniform(), ByLength(5)),
}


@pytest.mark.parametrize("mistake", [name for name in MISTAKES if name != "padded length"])
def test_a_mistake_is_found(mistake):
    with pytest.raises(AssertionError, match="custom: .* does not hold"):
        check_strategy(Strategy(MISTAKES[mistake]))
