"""What forward passes leave behind, and noise that is known already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from neft_zoo.noise.batch import Batch


class Deltas(Mapping[int, "Tensor"]):
    """What was added at each site; noise that was never there as a whole is drawn again if it is asked for."""

    def __init__(self) -> None:
        self._known: dict[int, Tensor | Callable[[], Tensor]] = {}

    def __setitem__(self, site: int, delta: Tensor | Callable[[], Tensor]) -> None:
        self._known[site] = delta

    def __getitem__(self, site: int) -> Tensor:
        delta = self._known[site]
        if callable(delta):
            delta = self._known[site] = delta()
        return delta

    def variable(self, site: int) -> Tensor | None:
        """Return the delta of a site where it is a variable that gradients are taken at, None elsewhere."""
        delta = self._known.get(site)
        return None if delta is None or callable(delta) or not delta.requires_grad else delta

    def __iter__(self) -> Iterator[int]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


@dataclass
class Pass:
    """What one forward pass left behind.

    Attributes:
        loss: the trainer's own loss.
        deltas: what was added at each site (`EMBEDDING`, or a layer's number).
        norms: L2 norm of what was added at each position, where it was measured on the way.
        embeds: what it was added to.
        hidden: last hidden state, where the objective asked for it.
        logits: what the model made of it, if that is not much.
        inputs: the input of every decoder layer, where the objective asked for it.
        batch: what was read.
        calls: how often the model was called with gradients, where calls are read.
        unmatched: shapes of embeddings that were another batch's.
    """

    loss: Any = None
    batch: Batch | None = None
    deltas: Deltas = field(default_factory=Deltas)
    norms: dict[int, Tensor] = field(default_factory=dict)
    embeds: dict[int, Tensor] = field(default_factory=dict)
    hidden: Float[Tensor, "B L D"] | None = None
    logits: Float[Tensor, "B L V"] | None = None
    inputs: dict[int, Tensor] = field(default_factory=dict)
    calls: int = 0
    unmatched: list[tuple[int, ...]] = field(default_factory=list)


@dataclass(frozen=True)
class FixedNoise:
    """A noise that is known already: a delta per site."""

    deltas: Mapping[int, Tensor]
    sign: float = 1.0

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        return self.deltas[batch.site] * self.sign
