"""Random numbers as hashes of their purpose, independent of the order in which they are drawn.

Each number is a hash of (run seed, rank, optimizer step, document, position, feature). So a document gets the same
noise alone, padded, packed, padding-free or under any gradient accumulation; a resumed run needs no generator state; a
checkpointed block sees the same numbers when recomputed; and the global random state is never touched. The hash is
SplitMix64 (Steele, Lea and Flood 2014): a counter times the golden ratio, followed by two multiply-xorshift rounds;
each hash gives two 32-bit numbers. Random rounding uses a cheaper hash (`dither`). Everything is written in tensor
operators, so it gives the same numbers on every device and inside compiled graphs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, TypeAlias

from neft_zoo.noise.blocks import blocks

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Int
    from torch import Tensor


def _signed(bits: int) -> int:
    """Return the low 64 bits of `bits` as an int64."""
    bits &= (1 << 64) - 1
    return bits - (1 << 64) if bits >> 63 else bits


GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def key_of(*parts: int | str) -> int:
    """Hash integers and names into an int64."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


_FEATURES = key_of("features")


def logical_shift(values: Int[Tensor, "*shape"], by: int) -> Int[Tensor, "*shape"]:
    """Shift right and fill with zeros; torch's own shift copies the sign bit."""
    return (values >> by).bitwise_and_((1 << (64 - by)) - 1)


def mix(values: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Apply SplitMix64's finalizer, in which every input bit flips every output bit with probability 1/2."""
    values = logical_shift(values, 30).bitwise_xor_(values).mul_(_FIRST)
    values = logical_shift(values, 27).bitwise_xor_(values).mul_(_SECOND)
    return logical_shift(values, 31).bitwise_xor_(values)


def stream(keys: Int[Tensor, "*shape"], name: str) -> Int[Tensor, "*shape"]:
    """Return independent keys for another draw at the same positions."""
    return mix(keys ^ key_of(name))


def bits(keys: Int[Tensor, "*shape"], width: int) -> Int[Tensor, "*shape width"]:
    """Return `width` random 32-bit integers per key, two from each hash."""
    import torch

    counters = torch.arange(1, (width + 1) // 2 + 1, device=keys.device).mul_(GOLDEN)
    # In this order, since torch multiplies the second summand by a factor, and there are fewer keys than hashes.
    return mix(counters + keys[..., None]).view(torch.int32)[..., :width]


def features(width: int, device: torch.device) -> Int[Tensor, " width"]:
    """Return a random 32-bit integer per feature, the same in every run."""
    import torch

    return bits(torch.full((), _FEATURES, device=device), width)


def dither(keys: Int[Tensor, " N"], features: Int[Tensor, " D"]) -> Int[Tensor, "N D"]:
    """Return a random 32-bit integer per key and feature, good enough for rounding, at a tenth of a hash's cost.

    One half of a key is an odd factor for the features' integers, the other half a summand (multiply-add hashing,
    Dietzfelbinger 1996). The numbers are nearly pairwise independent, but larger groups are not; so the means and
    energies of what is rounded vary as if all were independent.
    """
    import torch

    halves = keys.view(torch.int32).unflatten(0, (-1, 2))
    return (halves[:, :1] | 1).mul(features).add_(halves[:, 1:])


Draw: TypeAlias = Callable[["Int[Tensor, '*shape']", int], "Float[Tensor, '*shape width']"]


def _in_blocks(draw: Draw) -> Draw:
    """Make a draw process its rows block by block."""

    @wraps(draw)
    def drawn(keys: Int[Tensor, "*shape"], width: int) -> Float[Tensor, "*shape width"]:
        cut = blocks(keys.numel(), width, keys.device.type)
        if len(cut) < 2:
            return draw(keys, width)
        import torch

        out = torch.empty(*keys.shape, width, device=keys.device)
        flat, rows = keys.reshape(-1), out.view(-1, width)
        for block in cut:
            rows[block] = draw(flat[block], width)
        return out

    return drawn


@_in_blocks
def uniform(keys: Int[Tensor, "*shape"], width: int) -> Float[Tensor, "*shape width"]:
    """Draw from U(-1, 1): the 2**23 odd multiples of 2**-23, so the mean is exactly 0 and the bounds are excluded."""
    return bits(keys, width).bitwise_right_shift_(8).bitwise_or_(1).float().mul_(2.0**-23)


def unit(keys: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Draw one number per key from U(0, 1), with both ends excluded."""
    return (uniform(keys, 1)[..., 0] + 1) / 2


@_in_blocks
def signs(keys: Int[Tensor, "*shape"], width: int) -> Float[Tensor, "*shape width"]:
    """Draw -1 or +1 with equal probability."""
    return bits(keys, width).bitwise_right_shift_(31).bitwise_or_(1).float()


@_in_blocks
def normal(keys: Int[Tensor, "*shape"], width: int) -> Float[Tensor, "*shape width"]:
    """Draw from N(0, 1) by the Box-Muller transform; the two numbers of a pair are half the width apart."""
    import torch

    half = (width + 1) // 2
    drawn = bits(keys, 2 * half)
    radius = (drawn[..., :half] | 1).float().abs_().mul_(2.0**-31).log_().mul_(-2).sqrt_()
    numbers = drawn.view(torch.float32)  # in the place of the integers, which stays in the cache
    angle = numbers[..., half:].copy_(drawn[..., half:]).mul_(math.pi * 2.0**-31)
    numbers[..., :half].copy_(angle).cos_().mul_(radius)
    angle.sin_().mul_(radius)
    return numbers[..., :width]


@_in_blocks
def laplace(keys: Int[Tensor, "*shape"], width: int) -> Float[Tensor, "*shape width"]:
    """Draw from the Laplace distribution with mean 0 and standard deviation 1."""
    drawn = bits(keys, width).bitwise_or_(1).float()
    return drawn.abs().mul_(2.0**-31).log_().mul_(math.sqrt(0.5)).copysign_(drawn)


def gamma(proposals: Int[Tensor, "*shape"], decisions: Int[Tensor, "*shape"], order: float) -> Float[Tensor, "*shape"]:
    """Draw from Gamma(order, 1), order >= 1, by Marsaglia and Tsang's rejection method (2000).

    A proposal is accepted with a probability above 0.95 (at order 64, above 0.999), so eight proposals suffice.

    Args:
        proposals, decisions: keys for the proposed numbers and for accepting them.
        order: the shape parameter.
    """
    drawn = normal(proposals, 8).double()
    chance = (uniform(decisions, 8).double() + 1) / 2
    middle = order - 1 / 3
    cube = (1 + drawn / math.sqrt(9 * middle)).clamp(min=1e-9) ** 3
    taken = chance.log() < drawn.square() / 2 + middle * (1 - cube + cube.log())
    first = taken.byte().argmax(-1, keepdim=True)
    return (middle * cube.gather(-1, first)[..., 0]).float()
