"""The position of the logits that a model's loss compares with a label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from neft_zoo.noise.batch import IGNORED

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

# Relative; above the rounding error of a mean in half precision.
CLOSE = 1e-3


@torch.no_grad()
def loss_shifts(loss: Float[Tensor, ""], logits: Float[Tensor, "B L V"], labels: Int[Tensor, "B L"]) -> bool | None:
    """Return whether a language model's loss compares a label with the logits one position before it.

    Most do, but decoders of encoder-decoders, such as BART's, expect labels that are already shifted. No config says
    so, so it is inferred from the value of the loss; return None if the loss is neither mean, for example because it
    includes a router loss.
    """
    unshifted, shifted = (_mean(logits[:, : logits.shape[1] - by], labels[:, by:]) for by in (0, 1))
    near, apart = min(unshifted, shifted, key=lambda mean: (loss - mean).abs()), (unshifted - shifted).abs()
    if not bool(((loss - near).abs() <= CLOSE * near) & ((loss - near).abs() <= apart / 10)):
        return None
    return near is shifted


def _mean(logits: Float[Tensor, "B L V"], labels: Int[Tensor, "B L"]) -> Tensor:
    """Return the mean cross-entropy, row by row because float32 logits for all rows may not fit."""
    rows = zip(logits, labels, strict=True)
    total = sum(cross_entropy(row.float(), targets, ignore_index=IGNORED, reduction="sum") for row, targets in rows)
    return torch.as_tensor(total) / (labels != IGNORED).sum()
