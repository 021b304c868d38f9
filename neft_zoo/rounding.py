"""Adding small noise to numbers of low precision without losing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from neft_zoo.randomness import uniform

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from neft_zoo.batch import Batch

# The bits of a float32 that a narrower type leaves out.
LEFT_OUT = {torch.bfloat16: 16, torch.float16: 13}


def add_rounded(embeds: Float[Tensor, "B L D"], delta: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
    """Return embeds + delta in the dtype of `embeds`; in 16 bits, round so that the noise keeps its energy.

    A bf16 number near 1 has steps of 0.008: rounding to nearest drops most of a small noise, and all of it where it is
    below half a step. Rounding up or down at random in proportion would keep every coordinate's mean, but add several
    times the noise's own energy. Here the probability is such that the expected square of what is added is delta^2:
    the rms stays, norms stay inside their ball, and noise of mean 0 keeps its mean, as opposite noise is rounded to
    opposite sides. The price is that coordinates far below a step move seldom, and then by a whole one.
    """
    if embeds.dtype not in LEFT_OUT:
        return embeds + delta.to(embeds.dtype)
    step = 1 << LEFT_OUT[embeds.dtype]
    exact = embeds.float() + delta
    with torch.no_grad():
        bits = exact.view(torch.int32) & -step
        sides = torch.stack([bits, bits + step]).view(torch.float32)
        squares, order = (sides - embeds.float()).square().sort(0)
        inner, outer = sides.gather(0, order)
        share = (delta.square() - squares[0]) / (squares[1] - squares[0])
        dither = (uniform(batch.stream("rounding"), embeds.shape[-1]) + 1) / 2
        rounded = torch.where(dither < share, outer, inner).where(sides[0] != exact, exact)
    return (exact + (rounded - exact).detach()).to(embeds.dtype)
