"""CUDA kernels that draw noise and add it in one read and one write of the embeddings.

Hash, keys and rounding are those of `randomness` and `rounding`, so a document's numbers are the same on every device,
up to the last bit of a sum, a logarithm or a cosine. Imported late, since only CUDA builds of torch include Triton.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

from neft_zoo.noise.distributions import Gaussian, Rademacher, Uniform
from neft_zoo.noise.randomness import features
from neft_zoo.passes.rounding import DROPPED_MANTISSA_BITS

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from neft_zoo.noise.batch import Batch
    from neft_zoo.noise.distributions import Distribution

KINDS = {Uniform: 0, Rademacher: 1, Gaussian: 2}  # exact types only: a subclass may override the draw
BLOCK = 1024  # columns of each half per program


def add(
    embeds: Float[Tensor, "B L D"], what: Distribution, size: Float[Tensor, "B L 1"], batch: Batch
) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B L"]] | None:
    """Return embeds + size * what and the norms of the noise; None for inputs that the kernel does not support."""
    width, kind = embeds.shape[-1], KINDS.get(type(what))
    if kind is None or width % 4 or embeds.dtype not in (torch.float32, *DROPPED_MANTISSA_BITS):
        return None
    embeds = embeds.detach().contiguous()
    total, norms = torch.empty_like(embeds), torch.empty_like(batch.keys, dtype=torch.float32)
    sizes = (size.detach() * (1.0 if kind == 0 else what.rms)).float().contiguous()
    keys, rounding = batch.stream("what").contiguous(), batch.stream("rounding").contiguous()
    table, left_out = features(width, embeds.device).contiguous(), DROPPED_MANTISSA_BITS.get(embeds.dtype, 0)
    launch: Any = _add
    launch[(batch.keys.numel(),)](
        embeds, total, sizes, norms, keys, rounding, table, width // 2, kind, left_out, BLOCK
    )
    return total, norms


@triton.jit
def _words(key, first, N: tl.constexpr):
    """Return N of a key's 32-bit integers from an even index on, in the order of `randomness.bits`."""
    pair = (first // 2 + tl.arange(0, N // 2) + 1).to(tl.uint64)
    mixed = key.to(tl.uint64, bitcast=True) + pair * 0x9E3779B97F4A7C15
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB
    mixed = mixed ^ (mixed >> 31)
    low, high = (mixed & 0xFFFFFFFF).to(tl.uint32), (mixed >> 32).to(tl.uint32)
    return tl.interleave(low, high).to(tl.int32, bitcast=True)


@triton.jit
def _store(embeds, total, place, inside, delta, dither, features, DROPPED_MANTISSA_BITS: tl.constexpr):
    """Add to the embeddings at an index; see `rounding` for the rounding to 16 bits."""
    clean = tl.load(embeds + place, mask=inside, other=0.0).to(tl.float32)
    exact = clean + delta
    if DROPPED_MANTISSA_BITS > 0:
        step: tl.constexpr = 1 << DROPPED_MANTISSA_BITS
        factor, summand = dither.to(tl.int32) | 1, (dither >> 32).to(tl.int32)
        drawn = tl.load(features, mask=inside, other=0) * factor + summand
        raw = exact.to(tl.int32, bitcast=True)
        middle = ((raw & -step) | (step // 2)).to(tl.float32, bitcast=True)
        wide = (middle - clean) / (raw & -8388608).to(tl.float32, bitcast=True)
        other = tl.abs(drawn.to(tl.float32) * 0.0078125 * wide)
        least = tl.minimum((drawn & (step - 1)).to(tl.float32), other).to(tl.int32)
        backwards = (wide.to(tl.int32, bitcast=True) >> 31) & (step - 1)
        exact = (((least ^ backwards) + raw) & -step).to(tl.float32, bitcast=True)
    tl.store(total + place, exact.to(total.dtype.element_ty), mask=inside)


@triton.jit
def _add(
    embeds,
    total,
    sizes,
    norms,
    keys,
    rounding,
    table,
    half,
    KIND: tl.constexpr,
    DROPPED_MANTISSA_BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    key, dither, size = tl.load(keys + row), tl.load(rounding + row), tl.load(sizes + row)
    squares = tl.zeros([BLOCK], tl.float32)
    for first in range(0, half, BLOCK):
        column = first + tl.arange(0, BLOCK)
        inside = column < half
        one, two = _words(key, first, BLOCK), _words(key, half + first, BLOCK)
        if KIND == 0:
            left = ((one >> 8) | 1).to(tl.float32) * 1.1920928955078125e-07
            right = ((two >> 8) | 1).to(tl.float32) * 1.1920928955078125e-07
        elif KIND == 1:
            left, right = ((one >> 31) | 1).to(tl.float32), ((two >> 31) | 1).to(tl.float32)
        else:
            radius = tl.sqrt(tl.log(tl.abs((one | 1).to(tl.float32)) * 4.656612873077393e-10) * -2)
            angle = two.to(tl.float32) * 1.4629180792671596e-09
            left, right = tl.cos(angle) * radius, tl.sin(angle) * radius
        left, right = tl.where(inside, left * size, 0.0), tl.where(inside, right * size, 0.0)
        squares += left * left + right * right
        place = row * 2 * half + column
        _store(embeds, total, place, inside, left, dither, table + column, DROPPED_MANTISSA_BITS)
        _store(embeds, total, place + half, inside, right, dither, table + half + column, DROPPED_MANTISSA_BITS)
    tl.store(norms + row, tl.sqrt(tl.sum(squares)))
