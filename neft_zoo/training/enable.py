"""enable(): noise for an existing trainer of any class."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import transformers

from neft_zoo.errors import NoiseError
from neft_zoo.registry.entries import make
from neft_zoo.registry.strategy import Strategy
from neft_zoo.training.mixin import NoiseMixin

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

Host = TypeVar("Host", bound=transformers.Trainer)


def enable(
    trainer: Host,
    noise: str | Mapping[str, object] | Strategy,
    *,
    token_counts: Int[Tensor, " V"] | None = None,
    reference: Literal["clean", "same"] = "clean",
) -> Host:
    """Add noise to an existing trainer of any class, and return the same object.

    Its class becomes a subclass of the same name with `NoiseMixin` first in the MRO, so it trains as if it had been
    created with `noise=`. A trainer that already has the same noise is returned unchanged.

    Args:
        trainer: a `transformers.Trainer`, TRL's or any other subclass, that is not yet training.
        noise: a strategy's name, a mapping with `name` and arguments, or a `Strategy`.
        token_counts: count of each token in the training data (V,), for `token_frequency`; None counts them.
        reference: what the reference model of DPO and KTO sees: `clean`, the default, or the `same` draw as the
            policy.

    Raises:
        NoiseError: if the noise is invalid or incompatible with the trainer, which is then unchanged.

    Example:
        >>> enable(trainer, "neft_uniform").train()  # doctest: +SKIP
    """
    strategy = make(noise)
    if isinstance(trainer, NoiseMixin):
        if trainer.strategy != strategy:
            has, wanted = (f"{each.name} {each.arguments}" for each in (trainer.strategy, strategy))
            raise NoiseError(f"trainer must have no other noise, got {wanted} where it has {has}: make a new trainer.")
        return trainer
    if not isinstance(trainer, transformers.Trainer):
        raise NoiseError(
            f"trainer must be a transformers.Trainer, got {type(trainer).__name__}; a loop of your own takes "
            "neft_zoo.attach(model, noise, ...)."
        )
    own, attributes = type(trainer), dict(vars(trainer))
    trainer.__class__ = with_noise(own)
    try:
        trainer.set_noise(strategy, token_counts=token_counts, reference=reference)  # pyright: ignore
    except BaseException:
        trainer.__class__ = own
        vars(trainer).clear()
        vars(trainer).update(attributes)
        raise
    return trainer


@cache
def with_noise(cls: type[Host]) -> type[Host]:
    """Return a subclass of a trainer class that takes `noise=`, with the same name.

    Args:
        cls: a subclass of `transformers.Trainer`.
    """
    if issubclass(cls, NoiseMixin):
        return cls
    names = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(cls.__name__, (NoiseMixin, cls), {**names, "__reduce_ex__": _reduce})  # pyright: ignore


def _reduce(trainer: Any, protocol: int) -> tuple[Any, ...]:
    """Pickle a trainer by its original class, since its new class cannot be imported by name."""
    own = type(trainer).__mro__[2]
    return _copy_of, (own,), *object.__reduce_ex__(trainer, protocol)[2:]


def _copy_of(own: type[transformers.Trainer]) -> transformers.Trainer:
    return object.__new__(with_noise(own))
