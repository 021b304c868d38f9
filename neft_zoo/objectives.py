"""Objectives: how one training step spends its forward passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias

from neft_zoo.divergences import DIVERGENCES, Divergence
from neft_zoo.errors import NoiseError
from neft_zoo.mixing import EmbedMix
from neft_zoo.noise import Noise, TokenEdit
from neft_zoo.schedules import Scalar, check_count, check_number, check_scalar, value_at

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn

    from neft_zoo.batch import Batch
    from neft_zoo.step import Step

Family: TypeAlias = Literal["single pass", "consistency", "adversarial"]


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
    """

    loss: Any = None
    batch: Batch | None = None
    deltas: Deltas = field(default_factory=Deltas)
    norms: dict[int, Tensor] = field(default_factory=dict)
    embeds: dict[int, Tensor] = field(default_factory=dict)
    hidden: Float[Tensor, "B L D"] | None = None
    logits: Float[Tensor, "B L V"] | None = None
    inputs: dict[int, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """Turns passes into the loss of a step; it never sees the trainer behind `step`.

    Attributes:
        family: how the passes are used.
        passes: forward passes per batch, and as many backward.
        hidden: whether it compares last hidden states.
        inputs: whether it compares the inputs of decoder layers.
    """

    family: ClassVar[Family]
    hidden: ClassVar[bool]
    inputs: ClassVar[bool]

    @property
    def passes(self) -> int: ...

    def check(self, model: nn.Module) -> None: ...

    def takes(self, noise: Noise | TokenEdit | None) -> None: ...

    def __call__(self, step: Step, noise: Noise | TokenEdit | None) -> Float[Tensor, ""]: ...


class Defaults:
    """What an objective is unless it says otherwise."""

    hidden: ClassVar[bool] = False
    inputs: ClassVar[bool] = False

    def check(self, model: nn.Module) -> None:
        """Raise a `NoiseError`, before training, if the model lacks what the objective needs."""

    def takes(self, noise: Noise | TokenEdit | None) -> None:
        """Raise a `NoiseError`, when a strategy is made, if the objective cannot work with this noise."""


class ComparesPredictions(Defaults):
    """An objective that needs the next-token distributions of its passes."""

    hidden: ClassVar[bool] = True

    def check(self, model: nn.Module) -> None:
        from neft_zoo.head import LanguageHead  # late: `neft-zoo list` works without torch
        from neft_zoo.parts import find_backbone

        find_backbone(model)
        LanguageHead(model)


@dataclass(frozen=True)
class SinglePass(Defaults):
    """The trainer's own loss on noisy embeddings."""

    family: ClassVar[Family] = "single pass"
    passes = 1

    def __call__(self, step: Step, noise: Noise | TokenEdit | None) -> Float[Tensor, ""]:
        return step.run(noise).loss


@dataclass(frozen=True)
class Given:
    """A noise that is known already: a delta per site."""

    deltas: Mapping[int, Tensor]
    sign: float = 1.0

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        return self.deltas[batch.site] * self.sign


@dataclass(frozen=True)
class SymmetricPair(Defaults):
    """The mean loss of one draw added and the same draw subtracted."""

    family: ClassVar[Family] = "consistency"
    passes = 2

    def takes(self, noise: Noise | TokenEdit | None) -> None:
        if noise is None or isinstance(noise, TokenEdit):
            raise NoiseError(f"a symmetric pair needs a noise on embeddings or layers, got {noise!r}.")

    def __call__(self, step: Step, noise: Noise | TokenEdit | None) -> Float[Tensor, ""]:
        plus = step.run(noise)
        step.count(plus.loss / 2)
        minus = step.run(step.fixed(plus.deltas, noise, sign=-1.0))
        return step.total(minus.loss / 2)


@dataclass(frozen=True)
class DropoutConsistency(ComparesPredictions):
    """The mean loss of two passes with different dropout masks, and their symmetric divergence (R-Drop).

    Args:
        weight: of the mean of the two KL divergences (>= 0).
    """

    weight: Scalar = 1.0

    family: ClassVar[Family] = "consistency"
    passes = 2

    def __post_init__(self) -> None:
        check_scalar("weight", self.weight)

    def check(self, model: nn.Module) -> None:
        from neft_zoo.head import require_dropout

        super().check(model)
        require_dropout(model)

    def __call__(self, step: Step, noise: Noise | TokenEdit | None) -> Float[Tensor, ""]:
        one, two = step.run(noise), step.run(noise, redraw_dropout=True)
        weight = value_at(self.weight, step.batch.progress)
        return step.with_divergence({0: 0.5, 1: 0.5}, weight / 2, "symmetric_kl", one, two)


@dataclass(frozen=True)
class LayerStability(Defaults):
    """CE(clean) + weight * sum over layers of |h(clean) - h(noisy)|^2 / D, over the real tokens.

    The sum over tokens is divided as the trainer divides its own loss, by the step's graded tokens.

    Args:
        weight: of the distance (>= 0).
        first: the first decoder layer whose output counts.
    """

    weight: Scalar = 1.0
    first: int = 0

    family: ClassVar[Family] = "consistency"
    passes = 2
    hidden: ClassVar[bool] = True
    inputs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_scalar("weight", self.weight)
        check_count("first", self.first)

    def check(self, model: nn.Module) -> None:
        from neft_zoo.parts import find_layers

        layers = len(find_layers(model))
        if self.first >= layers:
            raise NoiseError(f"first must be below the model's {layers} layers, got {self.first}.")

    def __call__(self, step: Step, noise: Noise | TokenEdit | None) -> Float[Tensor, ""]:
        clean, noisy = step.run(None), step.run(noise)
        assert clean.hidden is not None and noisy.hidden is not None  # the tap records them
        distance = _distance(clean.hidden, noisy.hidden, step.batch)
        for index in sorted(clean.inputs):
            if index > self.first:
                distance = distance + _distance(clean.inputs[index], noisy.inputs[index], step.batch)
        return clean.loss + value_at(self.weight, step.batch.progress) * step.per_token(distance)


def _distance(one: Tensor, other: Tensor, batch: Batch) -> Tensor:
    """Return the squared distance per feature, summed over the real tokens."""
    return ((one.float() - other.float()).square().mean(-1) * batch.real).sum()


@dataclass(frozen=True)
class MixedTargets(ComparesPredictions):
    """l * CE(own labels) + (1 - l) * CE(the partner's labels), for a noise that mixes documents."""

    family: ClassVar[Family] = "single pass"
    passes = 1

    def takes(self, noise: Noise | TokenEdit | None) -> None:
        if not isinstance(noise, EmbedMix):
            raise NoiseError(f"mixed targets need a noise that mixes documents (EmbedMix), got {noise!r}.")

    def __call__(self, step: Step, noise: Noise | TokenEdit | None) -> Float[Tensor, ""]:
        assert isinstance(noise, EmbedMix)  # as `takes` has seen
        done = step.run(noise)
        return step.with_labels(noise.share(step.batch), done, noise.partners_labels(step.batch))


@dataclass(frozen=True)
class Consistency(ComparesPredictions):
    """first * CE(clean) + second * CE(noisy) + weight * divergence of the two predictions.

    Args:
        divergence: between the clean and the noisy next-token distribution, summed over the graded tokens and divided
            as the trainer divides its own loss.
        weight: of the divergence (>= 0).
        first: of the clean pass's loss (>= 0).
        second: of the noisy pass's loss (>= 0); at 0 it does not count.
    """

    divergence: Divergence = "symmetric_kl"
    weight: Scalar = 1.0
    first: float = 1.0
    second: float = 0.0

    family: ClassVar[Family] = "consistency"
    passes = 2

    def __post_init__(self) -> None:
        check_scalar("weight", self.weight)
        check_number("first", self.first)
        check_number("second", self.second)
        if self.divergence not in DIVERGENCES:
            raise NoiseError(f"divergence must be one of {', '.join(DIVERGENCES)}, got {self.divergence!r}.")

    def __call__(self, step: Step, noise: Noise | TokenEdit | None) -> Float[Tensor, ""]:
        clean, noisy = step.run(None), step.run(noise)
        losses = {number: share for number, share in enumerate((self.first, self.second)) if share}
        weight = value_at(self.weight, step.batch.progress)
        return step.with_divergence(losses, weight, self.divergence, clean, noisy)
