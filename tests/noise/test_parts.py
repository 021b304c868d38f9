"""What every part of a strategy promises: it is a value, and a distribution's `rms` is the rms of what it draws."""

import dataclasses
import importlib
import math

import pytest
import torch

from neft_zoo import NoiseError, noise
from neft_zoo.noise.additive import AdditiveNoise, AtLayers
from neft_zoo.noise.batch import Batch
from neft_zoo.noise.blocks import BLOCK, token_norms
from neft_zoo.noise.distributions import DistributionTraits, Gaussian, Uniform
from neft_zoo.noise.scales import ByLength, Fixed
from neft_zoo.passes.adding import add_drawn
from neft_zoo.registry.strategy import Strategy

NOISE = "additive batch cutoff data_dependent distributions mixup scales schedules tokens"
MODULES = [f"noise.{name}" for name in NOISE.split()]
MODULES += [f"objectives.{name}" for name in "adversarial ascent consistency norm_ball simple".split()]
DISTRIBUTIONS = [
    kind for kind in vars(noise).values() if isinstance(kind, type) and DistributionTraits in kind.__mro__[1:]
]
SIZED = [kind for kind in DISTRIBUTIONS if dataclasses.fields(kind)]  # with an rms to choose, the first field
MODULES += ["passes.records", "passes.weight_noise", "registry.entries", "registry.strategy"]


def batch_of(**inputs):
    return Batch.from_inputs({name: torch.as_tensor(value) for name, value in inputs.items()}, key=7)


@pytest.mark.parametrize("module", MODULES)
def test_parts_are_frozen(module):
    found = importlib.import_module(f"neft_zoo.{module}")
    kinds = [kind for kind in vars(found).values() if isinstance(kind, type) and kind.__module__ == found.__name__]
    parts = [kind for kind in kinds if dataclasses.is_dataclass(kind) and kind.__name__ != "Pass"]
    assert parts and all(kind.__dataclass_params__.frozen for kind in parts)


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_rms_is_that_of_what_is_drawn(kind):
    batch = batch_of(input_ids=torch.arange(512).view(8, 64))
    for part in [kind(), kind(0.25), kind(0.0)] if kind in SIZED else [kind()]:
        drawn = part(batch, 64)
        assert drawn.dtype == torch.float32
        assert drawn.square().mean().sqrt().item() == pytest.approx(part.rms, rel=0.02)


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_what_says_that_it_is_pointwise_draws_a_part_as_it_draws_the_whole(kind):
    batch, part = batch_of(input_ids=torch.arange(24).view(2, 12)), slice(8, 15)
    whole, alone = kind()(batch, 16).flatten(0, 1)[part], kind()(batch.part(part), 16)[0]
    assert torch.equal(whole, alone) == kind.pointwise


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_bound_is_the_largest_number_that_is_drawn(kind):
    batch = batch_of(input_ids=torch.arange(512).view(8, 64))
    for part in [kind(0.25), kind(2.0)] if kind in SIZED else [kind()]:
        largest = part(batch, 64).abs().max().item()
        assert largest <= part.bound, f"{part} draws {largest}, more than its bound {part.bound}"
        # A density that falls to 0 at the bound comes within half a percent of it in 32,768 draws.
        near = part.bound < 1.01 * largest or math.isinf(part.bound)
        assert near, f"the largest number that {part} draws is {largest}, far from its bound {part.bound}"


def test_the_distributions_of_the_papers_have_the_size_and_bound_that_they_state():
    stated = {
        "Uniform": (3**-0.5, 1),
        "SharedByToken": (3**-0.5, 1),
        "Rademacher": (1, 1),
        "Sphere": (3**-0.5, math.inf),
    }
    stated |= {"Gaussian": (1, math.inf), "Laplace": (1, math.inf)}
    for name, sizes in stated.items():
        distribution = getattr(noise, name)()
        assert (distribution.rms, distribution.bound) == pytest.approx(sizes), name


def test_a_plain_function_is_a_noise_that_is_drawn_as_a_whole():
    def noise(embeds, batch):
        return torch.ones_like(embeds) * batch.real[..., None]

    batch, embeds = batch_of(input_ids=torch.arange(24).view(2, 12)), torch.zeros(2, 12, 4)
    assert Strategy(noise).layers is False
    assert add_drawn(embeds, noise, batch) is None
    assert add_drawn(embeds, AdditiveNoise(Uniform(), Fixed(1.0)), batch) is not None


def test_documents_of_one_token_have_streams_of_their_own():
    batch = batch_of(input_ids=[[5], [6], [7]], attention_mask=[[1], [1], [1]])
    assert len(set(batch.document_stream("a").flatten().tolist())) == 3
    pair = batch_of(input_ids=[[5, 6], [5, 8]], attention_mask=[[1, 1], [1, 1]])
    assert (pair.document_stream("a")[:, 0] == pair.document_stream("a")[:, 1]).all()
    assert not (pair.document_stream("a") == pair.document_stream("b")).any()


def test_a_row_of_one_token_with_its_position_is_no_padding():
    assert batch_of(input_ids=[[5], [6]], position_ids=[[0], [0]]).real.all()


def test_raw_alpha_is_measured_before_the_modules_factor():
    batch = dataclasses.replace(batch_of(input_ids=[[5, 6]]), factor=3.0)
    scaled, raw = (ByLength(2.0, space=space)(torch.zeros(1, 2, 8), batch) for space in ("scaled", "raw"))
    assert torch.equal(scaled, torch.full((1, 2, 1), 0.5)) and torch.equal(raw, 3 * scaled)


@pytest.mark.parametrize("layers", [(), ("1",), (0, "1"), [0], 0])
def test_layers_are_all_or_numbers(layers):
    with pytest.raises(NoiseError, match="layers must be 'all' or a list of layer numbers, or of fractions .*, got"):
        AtLayers(Gaussian(), layers)


def test_noise_at_layers_is_that_noise():
    noise, batch = AdditiveNoise(Uniform(), Fixed(0.1)), batch_of(input_ids=[[5, 6], [5, 8]])
    assert torch.equal(AtLayers(noise)(torch.zeros(2, 2, 8), batch), noise(torch.zeros(2, 2, 8), batch))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_norms_of_tokens_are_those_of_all_at_once(dtype, monkeypatch):
    monkeypatch.setitem(BLOCK, "cpu", 70)
    states = torch.randn(3, 17, 33, generator=torch.Generator().manual_seed(0)).to(dtype)
    norms = token_norms(states)
    assert norms.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(norms.double(), states.double().square().sum(-1).sqrt(), rtol=1e-5, atol=0)
