"""Adding noise to embeddings: block by block, and to numbers of low precision without losing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from neft_zoo.geometry import Projected
from neft_zoo.noise import AdditiveNoise
from neft_zoo.randomness import blocks, dither, features

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from neft_zoo.batch import Batch
    from neft_zoo.distributions import Distribution
    from neft_zoo.noise import Noise

# The bits of a float32 that a narrower type leaves out.
LEFT_OUT = {torch.bfloat16: 16, torch.float16: 13}
SIGN_AND_EXPONENT = -(1 << 23)

# What draws the noise on a stretch of the positions, given their embeddings.
Draw: TypeAlias = "Callable[[Float[Tensor, 'N D'], slice], Float[Tensor, 'N D']]"


class _Sum(torch.autograd.Function):
    """Passes gradients to the summands of a sum that was computed, and rounded, before."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, *summands: Tensor) -> Tensor:
        ctx.dtypes = [each.dtype for each in summands]
        return total.view_as(total)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return None, *(grads[0].to(dtype) for dtype in ctx.dtypes)


class _SumOfItself(torch.autograd.Function):
    """Passes gradients to embeddings that a noise was made of: the noise is drawn again, block by block."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, embeds: Tensor, draw: Draw) -> Tensor:
        ctx.save_for_backward(embeds)
        ctx.draw = draw
        return total.view_as(total)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (embeds,) = ctx.saved_tensors
        width, whole = embeds.shape[-1], torch.empty_like(embeds, memory_format=torch.contiguous_format)
        flat, into, out = embeds.reshape(-1, width), grads[0].reshape(-1, width), whole.view(-1, width)
        back = getattr(ctx.draw, "back", None)  # where other embeddings are in what was added
        for block in blocks(len(flat), width, embeds.device.type):
            through = _back(ctx.draw, flat[block], into[block], block) if back is None else back(into, block)
            torch.add(into[block], through.to(into.dtype), out=out[block])
        return None, whole, None


def _back(draw: Draw, rows: Tensor, grads: Tensor, block: slice) -> Tensor:
    """Return the gradient that reaches embeddings through what was made of them."""
    with torch.enable_grad():
        part = rows.detach().requires_grad_()
        delta = draw(part, block)
    return torch.autograd.grad(delta, part, grads.to(delta.dtype))[0]


def add_rounded(embeds: Float[Tensor, "B L D"], delta: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
    """Return embeds + delta in the dtype of `embeds`; in 16 bits, round so that the noise keeps its energy.

    A bf16 number near 1 has steps of 0.008: rounding to nearest drops most of a small noise, and all of it where it is
    below half a step. Rounding up or down at random in proportion would keep every coordinate's mean, but add several
    times the noise's own energy. Here the probability is such that the expected square of what is added is delta^2:
    the rms stays, norms stay inside their ball, and noise of mean 0 keeps its mean, as opposite noise is rounded to
    opposite sides. The price is that coordinates far below a step move seldom, and then by a whole one.
    """
    return add_by_keys(embeds, delta, batch.stream("rounding") if embeds.dtype in LEFT_OUT else batch.keys)


def add_by_keys(embeds: Float[Tensor, "B L D"], delta: Float[Tensor, "B L D"], keys: Int[Tensor, "B L"]) -> Tensor:
    """Do the same with one key of the rounding per position."""
    if embeds.dtype not in LEFT_OUT:
        return embeds + delta.to(embeds.dtype)
    with torch.no_grad():
        width, total = embeds.shape[-1], torch.empty_like(embeds, memory_format=torch.contiguous_format)
        flat, deltas, out = embeds.reshape(-1, width), delta.reshape(-1, width), total.view(-1, width)
        keys, table = keys.flatten(), features(width, embeds.device)
        for block in blocks(len(keys), width, embeds.device.type):
            clean = flat[block].float()
            out[block] = _rounded(clean, clean + deltas[block], dither(keys[block], table), embeds.dtype)
    return _Sum.apply(total, embeds, delta)


def add_drawn(
    embeds: Float[Tensor, "B L D"], noise: Noise, batch: Batch
) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B L"]] | None:
    """Return embeds + noise, as `add_rounded` does, and the norms of the noise, without ever having all of the noise.

    None where the noise must be drawn as a whole, as its positions depend on each other.
    """
    found = _fused(noise, embeds, batch)
    if found is not None:
        return _Sum.apply(found[0], embeds), found[1]
    draw, passing = _parts(noise, embeds, batch), getattr(noise, "passes_gradients", False)
    if draw is None or (passing and torch.compiler.is_compiling()):
        return None
    with torch.no_grad():
        width, total = embeds.shape[-1], torch.empty_like(embeds, memory_format=torch.contiguous_format)
        norms, keys = torch.empty(batch.keys.numel(), device=embeds.device), batch.stream("rounding").flatten()
        flat, out, table = embeds.reshape(-1, width), total.view(-1, width), features(width, embeds.device)
        for block in blocks(len(keys), width, embeds.device.type):
            delta = draw(flat[block], block)
            norms[block] = torch.linalg.vector_norm(delta, dim=-1)
            if embeds.dtype in LEFT_OUT:
                clean = flat[block].float()
                out[block] = _rounded(clean, delta.add_(clean), dither(keys[block], table), embeds.dtype)
            else:
                torch.add(flat[block], delta.to(embeds.dtype), out=out[block])
    noisy = _SumOfItself.apply(total, embeds, draw) if passing else _Sum.apply(total, embeds)
    return noisy, norms.view(embeds.shape[:2])


def _fused(noise: Noise, embeds: Tensor, batch: Batch) -> tuple[Tensor, Tensor] | None:
    """Return what one kernel makes of it, where there is one."""
    if not embeds.is_cuda or type(noise) is not AdditiveNoise or torch.compiler.is_compiling():
        return None
    try:
        from neft_zoo import kernels
    except ImportError:  # no Triton, as in some builds of torch
        return None
    size = noise.size(embeds, batch)
    return None if size.requires_grad else kernels.add(embeds, noise.what, size, batch)


def _parts(noise: Noise, embeds: Tensor, batch: Batch) -> Draw | None:
    """Return what draws the noise on a stretch of the positions, None if it cannot be drawn so."""
    if type(noise) is Projected:
        inner = _parts(noise.noise, embeds, batch)
        return None if inner is None else lambda rows, part: noise.project(inner(rows, part))
    if type(noise) is AdditiveNoise:  # a subclass may draw otherwise
        size, draw = noise.size(embeds, batch).reshape(-1, 1), _drawn(noise.what, batch, embeds.shape[-1])
        return None if draw is None or size.requires_grad else lambda rows, part: draw(part).mul_(size[part])
    in_parts = getattr(noise, "in_parts", None)
    if in_parts is not None:
        return in_parts(embeds, batch)
    return (lambda rows, part: noise(rows[None], batch.part(part))[0]) if getattr(noise, "pointwise", False) else None


def _drawn(what: Distribution, batch: Batch, width: int) -> Callable[[slice], Float[Tensor, "N D"]] | None:
    """Return what draws a distribution on a stretch of the positions, None if it cannot be drawn so."""
    if getattr(what, "pointwise", False):
        return lambda part: what(batch.part(part), width)[0]
    in_parts = getattr(what, "in_parts", None)
    return None if in_parts is None else in_parts(batch, width)


def _rounded(
    clean: Float[Tensor, "N D"], total: Float[Tensor, "N D"], drawn: Int[Tensor, "N D"], dtype: torch.dtype
) -> Float[Tensor, "N D"]:
    """Return the sum of embeddings and noise at one of its two neighbours in their dtype.

    Floats are float32, random integers of 32 bits; what is given is written to.

    Let the neighbour nearer to the embedding be A steps away from it and the sum a fraction f of a step further. Then
    E[added^2] = delta^2 means that the outer neighbour is taken with probability f (2 A + f) / (2 A + 1): if one
    uniform number of [0, 1) is at least 1 - f, and so is another one times 2 A + 1. The smaller of the two is added to
    the bits that are left out, so that it carries or does not; backwards where the outer neighbour is nearer to 0.
    """
    step = 1 << LEFT_OUT[dtype]
    exact = total.view(torch.int32)
    # From the embedding to the middle of the two neighbours is A + 1/2 steps; a step is 2**-k of the power of two.
    wide = (exact & -step).bitwise_or_(step // 2).view(torch.float32).sub_(clean)  # negative: towards 0
    # From here on the memory of what has been read is written to: a block with all its parts lies in the cache so.
    wide.div_(torch.bitwise_and(exact, SIGN_AND_EXPONENT, out=clean.view(torch.int32)).view(torch.float32))
    other = clean.copy_(drawn).mul_(2.0**-7).mul_(wide).abs_()
    least = drawn.bitwise_and_(step - 1).float()
    least = drawn.copy_(torch.minimum(least, other, out=least))
    backwards = wide.view(torch.int32).bitwise_right_shift_(31).bitwise_and_(step - 1)
    return least.bitwise_xor_(backwards).add_(exact).bitwise_and_(-step).view(torch.float32)
