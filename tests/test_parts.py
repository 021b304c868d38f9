"""What every part of a strategy promises: it is a value, and a distribution's `rms` is the rms of what it draws."""

import dataclasses
import importlib

import pytest
import torch

from neft_zoo.batch import Batch
from neft_zoo.distributions import Gaussian, Laplace, Rademacher, SharedByToken, Sphere, Uniform
from neft_zoo.scales import ByLength

MODULES = (
    "batch distributions scales tokens noise objectives registry ball ascent cuts mixing weights schedules geometry"
)


def batch_of(**inputs):
    return Batch.from_inputs({name: torch.as_tensor(value) for name, value in inputs.items()}, key=7)


@pytest.mark.parametrize("module", MODULES.split())
def test_parts_are_frozen(module):
    found = importlib.import_module(f"neft_zoo.{module}")
    kinds = [kind for kind in vars(found).values() if isinstance(kind, type) and kind.__module__ == found.__name__]
    parts = [kind for kind in kinds if dataclasses.is_dataclass(kind) and kind.__name__ != "Pass"]
    assert parts and all(kind.__dataclass_params__.frozen for kind in parts)


@pytest.mark.parametrize("kind", [Uniform, SharedByToken, Gaussian, Rademacher, Laplace, Sphere])
def test_rms_is_that_of_what_is_drawn(kind):
    batch = batch_of(input_ids=torch.arange(512).view(8, 64))
    parts = [kind()] if kind in (Uniform, SharedByToken) else [kind(), kind(0.25), kind(0.0)]
    for part in parts:
        drawn = part(batch, 64)
        assert drawn.dtype == torch.float32
        assert drawn.square().mean().sqrt().item() == pytest.approx(part.rms, rel=0.02)
    if len(parts) == 3:
        assert kind().rms == pytest.approx(1 / 3**0.5 if kind is Sphere else 1.0)


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
