"""Noise for a compiled model, drawn before the model runs: the graph has one addition and no graph break."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch

from neft_zoo.noise.batch import EMBEDDING
from neft_zoo.passes.adding import add_by_keys, add_rounded
from neft_zoo.passes.anatomy import embed_scale
from neft_zoo.passes.rounding import DROPPED_MANTISSA_BITS
from neft_zoo.passes.sharding import is_unsharded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Float, Int
    from torch import Tensor, nn

    from neft_zoo.noise.additive import Noise
    from neft_zoo.noise.batch import Batch


@dataclass(frozen=True, eq=False)
class Drawn:
    """Noise on the embeddings, drawn before the pass.

    Attributes:
        embeds: the clean embeddings, looked up outside the graph.
        delta: what the noise adds.
        rounded: the change that delta makes after the sum is rounded to the dtype of the embeddings.
    """

    embeds: Float[Tensor, "B L D"]
    delta: Float[Tensor, "B L D"]
    rounded: Float[Tensor, "B L D"]

    def add(self, embeds: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Return the noisy embeddings."""
        return (embeds.float() + self.rounded).to(embeds.dtype)


@dataclass(frozen=True, eq=False)
class DrawnForLayer:
    """Noise on a layer's input, drawn before the pass that computes this input.

    Attributes:
        delta: what the noise adds.
        keys: random keys for rounding a 16-bit input.
    """

    delta: Float[Tensor, "B L D"]
    keys: Int[Tensor, "B L"]
    embeds: ClassVar[None] = None

    def add(self, hidden: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Return the noisy input."""
        return add_by_keys(hidden, self.delta, self.keys)


class Predrawn:
    """The noise of the open pass of a compiled model, by site, held in a global.

    A hook's attributes count as attributes of a torch module, and torch.compile assumes static shapes for tensors
    there: it would recompile for every length.
    """

    drawn: Mapping[int, Drawn | DrawnForLayer] = {}


PREDRAWN = Predrawn()


def draw_ahead(embedding: nn.Module, noise: Noise, batch: Batch) -> dict[int, Drawn]:
    """Return the noise to be added to the output of `embedding`, by site; empty if its table is sharded.

    Noise that passes gradients to the embeddings (dropout, mixup) passes them through this second lookup.
    """
    if not is_unsharded(getattr(embedding, "weight", None)):
        return {}
    embeds = embedding(batch.input_ids)
    delta = noise(embeds, replace(batch, factor=embed_scale(embedding)))
    if embeds.dtype not in DROPPED_MANTISSA_BITS:
        return {EMBEDDING: Drawn(embeds.detach(), delta, delta)}
    rounded = add_rounded(embeds, delta, batch).float() - embeds.float()
    return {EMBEDDING: Drawn(embeds.detach(), delta, rounded)}


def draw_for_layers(width: int, noise: Noise, batch: Batch, sites: Sequence[int]) -> dict[int, DrawnForLayer]:
    """Return the noise for the inputs of layers, by layer; empty if it is computed from those inputs."""
    unknown = torch.full((1, 1, 1), torch.nan, device=batch.keys.device).expand(*batch.keys.shape, width)
    if noise(unknown, batch.at(sites[0])).isnan().any():
        return {}
    seen = [batch.at(site) for site in sites]
    return {at.site: DrawnForLayer(noise(unknown, at), at.stream("rounding")) for at in seen}
