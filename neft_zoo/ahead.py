"""Noise for a compiled model: drawn before the model runs, so that its graph holds one addition and no break."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from neft_zoo.parts import embed_scale
from neft_zoo.rounding import LEFT_OUT, add_rounded
from neft_zoo.sharding import is_whole

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn

    from neft_zoo.batch import Batch
    from neft_zoo.noise import Noise


@dataclass(frozen=True, eq=False)
class Drawn:
    """A noise that is known before the pass.

    Attributes:
        embeds: the clean embeddings, looked up outside the graph.
        delta: what the noise adds.
        rounded: delta as it comes out once the sum is rounded to the dtype of the embeddings.
    """

    embeds: Float[Tensor, "B L D"]
    delta: Float[Tensor, "B L D"]
    rounded: Float[Tensor, "B L D"]

    def add(self, embeds: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Return the noisy embeddings."""
        return (embeds.float() + self.rounded).to(embeds.dtype)


class Known:
    """What the hooks of a compiled model add now, read through a global.

    torch.compile takes a tensor that it reaches through one of torch's own modules, as it reaches a hook's attributes,
    for one of fixed shape, and would compile every length anew.
    """

    drawn: Drawn | None = None


KNOWN = Known()


def draw_ahead(embedding: nn.Module, noise: Noise, batch: Batch) -> Drawn | None:
    """Return what a noise will add to the output of `embedding`; None if that cannot be known outside the graph.

    It cannot where the noise passes gradients to the embeddings (dropout, mixing, a perturbation that is ascended) or
    where the table is sharded.
    """
    if not is_whole(getattr(embedding, "weight", None)):
        return None
    with torch.no_grad():
        embeds = embedding(batch.input_ids)
    batch = replace(batch, factor=embed_scale(embedding))
    delta = noise(embeds.requires_grad_(), batch)
    if delta.requires_grad:
        return None
    embeds = embeds.detach()
    if embeds.dtype not in LEFT_OUT:
        return Drawn(embeds, delta, delta)
    return Drawn(embeds, delta, add_rounded(embeds, delta, batch).float() - embeds.float())
