"""Adding noise to embeddings, block by block, and passing gradients through the sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from neft_zoo.noise.additive import AdditiveNoise, BlockDrawWithBackward, NoiseTraits
from neft_zoo.noise.blocks import blocks
from neft_zoo.noise.randomness import dither, features
from neft_zoo.passes.rounding import DROPPED_MANTISSA_BITS, round_sum

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from neft_zoo.noise.additive import BlockDraw, Noise
    from neft_zoo.noise.batch import Batch


class _Sum(torch.autograd.Function):
    """Passes gradients to the summands of a sum that has already been computed and rounded."""

    @staticmethod
    def forward(total: Tensor, *summands: Tensor) -> Tensor:
        return total

    # Separate from `forward`, as torch.func.grad requires.
    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.dtypes = [summand.dtype for summand in inputs[1:]]
        # Without this the output would be a view, and models could not write image features into it in place:
        # https://docs.pytorch.org/docs/stable/generated/torch.autograd.function.FunctionCtx.mark_dirty.html
        ctx.mark_dirty(inputs[0])

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(grads[0].to(dtype) for dtype in ctx.dtypes)


class _SumOfItself(torch.autograd.Function):
    """Passes gradients to the embeddings that a noise is computed from, by drawing the noise again block by block."""

    @staticmethod
    def forward(total: Tensor, embeds: Tensor, draw: BlockDraw) -> Tensor:
        return total

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, Tensor, BlockDraw], output: Tensor) -> None:
        total, embeds, ctx.draw = inputs
        ctx.save_for_backward(embeds)
        ctx.mark_dirty(total)  # see _Sum

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (embeds,) = ctx.saved_tensors
        width, grad_embeds = embeds.shape[-1], torch.empty_like(embeds, memory_format=torch.contiguous_format)
        flat, into, out = embeds.reshape(-1, width), grads[0].reshape(-1, width), grad_embeds.view(-1, width)
        for block in blocks(len(flat), width, embeds.device.type):
            if isinstance(ctx.draw, BlockDrawWithBackward):
                through = ctx.draw.back(into, block)
            else:
                through = _gradient_through(ctx.draw, flat[block], into[block], block)
            torch.add(into[block], through.to(into.dtype), out=out[block])
        return None, grad_embeds, None


def _gradient_through(draw: BlockDraw, rows: Tensor, grads: Tensor, block: slice) -> Tensor:
    """Return the gradient with respect to the embeddings of the noise that is computed from them."""
    with torch.enable_grad():
        part = rows.detach().requires_grad_()
        delta = draw(part, block)
    return torch.autograd.grad(delta, part, grads.to(delta.dtype))[0]


def add_rounded(embeds: Float[Tensor, "B L D"], delta: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
    """Return embeds + delta in the dtype of `embeds`; in 16 bits, round so that the noise keeps its energy.

    Near 1, bf16 numbers are up to 0.008 apart: rounding to nearest drops most of a small noise, and all of it below
    half a step. Stochastic rounding in proportion would preserve the mean of every coordinate, but add several times
    the noise's own energy. Here the probability is chosen such that the expected square of what is added is delta^2:
    the rms is preserved, norms stay inside their ball, and zero-mean noise stays zero-mean, because opposite noise is
    rounded to opposite sides. The cost is that coordinates far below a step change rarely, and then by a whole step.
    """
    return add_by_keys(
        embeds, delta, batch.stream("rounding") if embeds.dtype in DROPPED_MANTISSA_BITS else batch.keys
    )


def add_by_keys(embeds: Float[Tensor, "B L D"], delta: Float[Tensor, "B L D"], keys: Int[Tensor, "B L"]) -> Tensor:
    """Return the same sum as `add_rounded`, given one rounding key per position."""
    if embeds.dtype not in DROPPED_MANTISSA_BITS:
        return embeds + delta.to(embeds.dtype)
    with torch.no_grad():
        width, total = embeds.shape[-1], torch.empty_like(embeds, memory_format=torch.contiguous_format)
        flat, deltas, out = embeds.reshape(-1, width), delta.reshape(-1, width), total.view(-1, width)
        keys, table = keys.flatten(), features(width, embeds.device)
        for block in blocks(len(keys), width, embeds.device.type):
            clean = flat[block].float()
            out[block] = round_sum(clean, clean + deltas[block], dither(keys[block], table), embeds.dtype)
    return _Sum.apply(total, embeds, delta)


def add_drawn(
    embeds: Float[Tensor, "B L D"], noise: Noise, batch: Batch
) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B L"]] | None:
    """Return embeds + noise, as `add_rounded` does, and the norms of the noise, without holding all of the noise.

    Return None if the noise must be drawn as a whole, because its positions depend on each other.
    """
    fused = _fused(noise, embeds, batch)
    if fused is not None:
        return _Sum.apply(fused[0], embeds), fused[1]
    passing = isinstance(noise, NoiseTraits) and noise.passes_gradients
    if passing and torch.compiler.is_compiling():
        return None
    draw = noise.in_parts(embeds, batch) if isinstance(noise, NoiseTraits) else None
    if draw is None:
        return None
    with torch.no_grad():
        width, total = embeds.shape[-1], torch.empty_like(embeds, memory_format=torch.contiguous_format)
        norms, keys = torch.empty(batch.keys.numel(), device=embeds.device), batch.stream("rounding").flatten()
        flat, out, table = embeds.reshape(-1, width), total.view(-1, width), features(width, embeds.device)
        for block in blocks(len(keys), width, embeds.device.type):
            delta = draw(flat[block], block)
            norms[block] = torch.linalg.vector_norm(delta, dim=-1)
            if embeds.dtype in DROPPED_MANTISSA_BITS:
                clean = flat[block].float()
                out[block] = round_sum(clean, delta.add_(clean), dither(keys[block], table), embeds.dtype)
            else:
                torch.add(flat[block], delta.to(embeds.dtype), out=out[block])
    noisy = _SumOfItself.apply(total, embeds, draw) if passing else _Sum.apply(total, embeds)
    return noisy, norms.view(embeds.shape[:2])


def _fused(noise: Noise, embeds: Tensor, batch: Batch) -> tuple[Tensor, Tensor] | None:
    """Return the result of the fused kernel, or None if it does not apply."""
    if not embeds.is_cuda or type(noise) is not AdditiveNoise or torch.compiler.is_compiling():
        return None
    try:
        from neft_zoo.passes import triton_kernels as kernels
    except ImportError:  # some builds of torch come without Triton
        return None
    size = noise.size(embeds, batch)
    return None if size.requires_grad else kernels.add(embeds, noise.what, size, batch)
