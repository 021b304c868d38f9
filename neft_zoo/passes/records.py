"""Records of forward passes, and noise with given deltas."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from neft_zoo.noise.batch import Batch


class Deltas(Mapping[int, "Tensor"]):
    """The delta that was added at each site; a delta that was added block by block is drawn again when read."""

    def __init__(self) -> None:
        self._deltas: dict[int, Tensor | Callable[[], Tensor]] = {}

    def __setitem__(self, site: int, delta: Tensor | Callable[[], Tensor]) -> None:
        self._deltas[site] = delta

    def __getitem__(self, site: int) -> Tensor:
        delta = self._deltas[site]
        if callable(delta):
            delta = self._deltas[site] = delta()
        return delta

    def variable(self, site: int) -> Tensor | None:
        """Return the delta of a site if it is a variable to be differentiated, else None."""
        delta = self._deltas.get(site)
        return None if delta is None or callable(delta) or not delta.requires_grad else delta

    def __iter__(self) -> Iterator[int]:
        return iter(self._deltas)

    def __len__(self) -> int:
        return len(self._deltas)


@dataclass
class Pass:
    """The record of one forward pass.

    Attributes:
        loss: the trainer's own loss.
        deltas: the noise that was added at each site (`EMBEDDING`, or a layer's number).
        norms: L2 norm of the noise at every position (B, L), by site, if it was measured while adding.
        embeds: the tensor that the noise was added to, by site.
        hidden: last hidden states, if the objective compares them.
        logits: the model's logits, if they are few: (B, L, V), for classes (B, C), or for the two ends of a span (2 B,
            L).
        inputs: if layers are hooked, the input of every decoder layer, by its number, and the output of the last.
        batch: the batch of the model's call.
        calls: number of model calls with gradients, if calls are read.
        unmatched: shapes of embeddings that did not match the batch.
        ids_given: whether the model was called with token ids.
        without_gradients: whether decoder layers ran without gradients, so that nothing can be added or compared
            there.
    """

    loss: Any = None
    batch: Batch | None = None
    deltas: Deltas = field(default_factory=Deltas)
    norms: dict[int, Tensor] = field(default_factory=dict)
    embeds: dict[int, Tensor] = field(default_factory=dict)
    hidden: Float[Tensor, "B L D"] | None = None
    logits: Float[Tensor, "*shape V"] | None = None
    inputs: dict[int, Tensor] = field(default_factory=dict)
    calls: int = 0
    unmatched: list[tuple[int, ...]] = field(default_factory=list)
    ids_given: bool = False
    without_gradients: bool = False


@dataclass(frozen=True)
class FixedNoise:
    """A noise with given deltas, by site, multiplied by a sign."""

    deltas: Mapping[int, Tensor]
    sign: float = 1.0

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        return self.deltas[batch.site] * self.sign
