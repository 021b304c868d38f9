"""Rounding the sum of embeddings and noise to 16 bits without losing the noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


# The mantissa bits of a float32 that a narrower type drops.
DROPPED_MANTISSA_BITS = {torch.bfloat16: 16, torch.float16: 13}


SIGN_AND_EXPONENT = -(1 << 23)


def round_sum(
    clean: Float[Tensor, "N D"], total: Float[Tensor, "N D"], drawn: Int[Tensor, "N D"], dtype: torch.dtype
) -> Float[Tensor, "N D"]:
    """Return the sum of embeddings and noise, rounded to one of its two neighbours in their dtype.

    Floats are float32, random integers have 32 bits; the arguments are overwritten.

    Let the neighbour closer to the embedding be A steps away from it, and let the sum lie a fraction f of a step
    further. For E[added^2] = delta^2, the outer neighbour must be chosen with probability f (2 A + f) / (2 A + 1).
    This is the probability that one uniform number in [0, 1) is at least 1 - f, and so is another one times 2 A + 1.
    So the smaller of the two is added to the dropped bits, and a carry selects the outer neighbour; the direction is
    reversed if the outer neighbour is closer to 0.
    """
    step = 1 << DROPPED_MANTISSA_BITS[dtype]
    exact = total.view(torch.int32)
    # The middle of the two neighbours is A + 1/2 steps from the embedding; a step is 2**-k of the power of two.
    wide = (exact & -step).bitwise_or_(step // 2).view(torch.float32).sub_(clean)  # negative: towards 0
    # From here on, buffers that are no longer needed are reused, so that a block fits the cache.
    wide.div_(torch.bitwise_and(exact, SIGN_AND_EXPONENT, out=clean.view(torch.int32)).view(torch.float32))
    other = clean.copy_(drawn).mul_(2.0**-7).mul_(wide).abs_()
    least = drawn.bitwise_and_(step - 1).float()
    least = drawn.copy_(torch.minimum(least, other, out=least))
    backwards = wide.view(torch.int32).bitwise_right_shift_(31).bitwise_and_(step - 1)
    return least.bitwise_xor_(backwards).add_(exact).bitwise_and_(-step).view(torch.float32)
