"""How a sum of embeddings and noise is rounded to 16 bits without losing the noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


# The bits of a float32 that a narrower type leaves out.
DROPPED_MANTISSA_BITS = {torch.bfloat16: 16, torch.float16: 13}


SIGN_AND_EXPONENT = -(1 << 23)


def round_sum(
    clean: Float[Tensor, "N D"], total: Float[Tensor, "N D"], drawn: Int[Tensor, "N D"], dtype: torch.dtype
) -> Float[Tensor, "N D"]:
    """Return the sum of embeddings and noise at one of its two neighbours in their dtype.

    Floats are float32, random integers of 32 bits; what is given is written to.

    Let the neighbour nearer to the embedding be A steps away from it and the sum a fraction f of a step further. Then
    E[added^2] = delta^2 means that the outer neighbour is taken with probability f (2 A + f) / (2 A + 1): if one
    uniform number of [0, 1) is at least 1 - f, and so is another one times 2 A + 1. The smaller of the two is added to
    the bits that are left out, so that it carries or does not; backwards where the outer neighbour is nearer to 0.
    """
    step = 1 << DROPPED_MANTISSA_BITS[dtype]
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
