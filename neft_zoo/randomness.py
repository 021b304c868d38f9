"""Random numbers that depend on what they are for, not on when they are drawn.

Each number is a hash of (run seed, rank, optimizer step, document, position, feature), so a document gets the same
noise alone, padded, packed, padding-free or in any accumulation split, a resumed run needs no generator state, a
recomputed (checkpointed) block sees the same numbers again, and the global random state is never touched. The hash is
SplitMix64 (Steele, Lea and Flood 2014): a counter times the golden ratio, finished by two multiply-xorshift rounds.
It is written with tensor operators only, hence the same on every device and inside a compiled graph.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


def _signed(bits: int) -> int:
    """Return the int64 with the low 64 bits of `bits`."""
    bits &= (1 << 64) - 1
    return bits - (1 << 64) if bits >> 63 else bits


GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def key_of(*parts: int | str) -> int:
    """Return an int64 that is a hash of integers and names."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def logical_shift(values: Int[Tensor, "*shape"], by: int) -> Int[Tensor, "*shape"]:
    """Shift right and fill with zeros; torch's own shift copies the sign bit."""
    return (values >> by).bitwise_and_((1 << (64 - by)) - 1)


def mix(values: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """SplitMix64's finalizer: every input bit flips every output bit with probability 1/2."""
    values = (values ^ logical_shift(values, 30)).mul_(_FIRST)
    values = (values ^ logical_shift(values, 27)).mul_(_SECOND)
    return values ^ logical_shift(values, 31)


def stream(keys: Int[Tensor, "*shape"], name: str) -> Int[Tensor, "*shape"]:
    """Return independent keys for another use of the same positions."""
    return mix(keys ^ key_of(name))


def bits(keys: Int[Tensor, "*shape"], width: int) -> Int[Tensor, "*shape width"]:
    """Return `width` random 64-bit integers per key."""
    counters = keys.new_ones(width).cumsum(0) * GOLDEN
    return mix(keys[..., None] + counters)


def uniform(keys: Int[Tensor, "*shape"], width: int) -> Float[Tensor, "*shape width"]:
    """Draw from U(-1, 1): the 2**23 odd multiples of 2**-23, so the mean is exactly 0 and no bound is reached."""
    steps = logical_shift(bits(keys, width), 41)
    return (steps * 2 + 1).float() * 2.0**-23 - 1


def unit(keys: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Draw one number per key from U(0, 1), both ends excluded."""
    return (uniform(keys, 1)[..., 0] + 1) / 2


def signs(keys: Int[Tensor, "*shape"], width: int) -> Float[Tensor, "*shape width"]:
    """Draw -1 or +1 with equal probability."""
    return (logical_shift(bits(keys, width), 63) * 2 - 1).float()


def normal(keys: Int[Tensor, "*shape"], width: int) -> Float[Tensor, "*shape width"]:
    """Draw from N(0, 1) by Box and Muller's transform, both halves of one 64-bit integer a draw."""
    drawn = bits(keys, width)
    radius = (logical_shift(drawn, 32).float() + 0.5).mul_(2.0**-32).log_().mul_(-2).sqrt_()
    angle = (drawn & 0xFFFFFFFF).float().mul_(2 * math.pi * 2.0**-32)
    return angle.cos_().mul_(radius)


def laplace(keys: Int[Tensor, "*shape"], width: int) -> Float[Tensor, "*shape width"]:
    """Draw from the Laplace distribution with mean 0 and standard deviation 1."""
    drawn = bits(keys, width)
    sign = (logical_shift(drawn, 63) * 2 - 1).float()
    size = ((drawn & 0xFFFFFFFF).float() + 0.5).mul_(2.0**-32).log_().mul_(-math.sqrt(0.5))
    return sign.mul_(size)
