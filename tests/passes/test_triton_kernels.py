"""The CUDA kernel adds what the tensor operators add; without a GPU, in Triton's interpreter: `make test-kernels`."""

import os
from dataclasses import replace

import pytest
import torch

from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.batch import Batch
from neft_zoo.noise.distributions import Gaussian, Laplace, Rademacher, Uniform
from neft_zoo.noise.scales import ByLength, Relative
from neft_zoo.passes.adding import add_drawn

# Triton reads it once, when it is first imported.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not INTERPRETED and not torch.cuda.is_available(), reason="needs CUDA, or TRITON_INTERPRET=1"),
]


@pytest.fixture
def add():
    pytest.importorskip("triton")
    from neft_zoo.passes.triton_kernels import add

    return add


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 100, (2, 5), generator=generator).to(DEVICE)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], device=DEVICE)
    return Batch.from_inputs({"input_ids": ids, "attention_mask": mask}, key=3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [4, 64, 2052, 4096])
@pytest.mark.parametrize("what", [Uniform(), Rademacher(0.5), Gaussian(2.0)])
@pytest.mark.parametrize("scale", [ByLength(5.0), Relative(1e-3)])
def test_kernel_adds_what_the_operators_add(add, batch, what, scale, width, dtype):
    noise = AdditiveNoise(what, scale)
    embeds = torch.randn(2, 5, width, device=DEVICE).to(dtype)
    total, norms = add(embeds, what, noise.size(embeds, batch), batch)
    alone = replace(batch, **{k: v.cpu() for k, v in vars(batch).items() if isinstance(v, torch.Tensor)})
    expected, measured = add_drawn(embeds.cpu(), noise, alone)
    total, norms, embeds, batch = total.cpu(), norms.cpu(), embeds.cpu(), alone
    assert total.dtype == dtype
    torch.testing.assert_close(norms, measured, rtol=1e-5, atol=0)
    same = (total == expected).float().mean()
    # Another order of rounding, or another cosine, moves a sum by its last bit, and seldom a rounded one.
    if dtype == torch.float32:
        torch.testing.assert_close(total, expected, rtol=1e-6, atol=1e-6 * norms.max().item())
    else:
        steps = (total.float() - expected.float()).abs() / expected.float().abs().clamp(min=1e-4)
        assert same > 0.999 and steps.max() <= 2 * torch.finfo(dtype).eps
    assert torch.equal(total[~batch.real], embeds[~batch.real])


def test_what_the_kernel_does_not_know_is_left_to_the_operators(add, batch):
    size, embeds = torch.ones(2, 5, 1, device=DEVICE), torch.zeros(2, 5, 64, device=DEVICE)
    assert add(embeds, Laplace(), size, batch) is None
    assert add(embeds[..., :62], Uniform(), size, batch) is None
    assert add(embeds.double(), Uniform(), size, batch) is None
