"""Noise for a `compute_loss` that overrides ours, in a subclass or on an instance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from neft_zoo.passes.random_state import RandomState
from neft_zoo.training.own_loss import WeightGradients, copy_of
from neft_zoo.training.pass_counters import PassCounters
from neft_zoo.training.session import ModelInputs, NoiseSession
from neft_zoo.training.step_checks import passed_by_since
from neft_zoo.training.watched_calls import unwatched

if TYPE_CHECKING:
    from torch import nn

# A bound `compute_loss`, and a function that computes such a loss under the strategy.
Loss: TypeAlias = Callable[..., object]
UnderStrategy: TypeAlias = Callable[..., object]


class Host(Protocol):
    """A trainer with a session."""

    session: NoiseSession


@contextmanager
def outermost_loss(trainer: Host, ours: Loss, under_strategy: UnderStrategy) -> Iterator[None]:
    """Compute an overriding loss under the strategy, unless it calls our `compute_loss` itself.

    Custom losses, for example with token weights, are mostly a `compute_loss` that only calls the model.

    Args:
        trainer: the trainer whose loss is overridden.
        ours: the mixin's `compute_loss`, as a function.
        under_strategy: computes its first argument, a loss, under the strategy.
    """
    replaced = vars(trainer).get("compute_loss")
    if replaced is None and type(trainer).compute_loss is ours:  # pyright: ignore[reportAttributeAccessIssue]
        yield
        return
    front: Loss = getattr(trainer, "compute_loss")  # noqa: B009 - a protocol cannot name what the mixin overrides
    vars(trainer)["compute_loss"] = partial(_loss, trainer, front, under_strategy)
    try:
        yield
    finally:
        if replaced is None:
            del vars(trainer)["compute_loss"]
        else:
            vars(trainer)["compute_loss"] = replaced


def _loss(
    trainer: Any,
    front: Loss,
    under_strategy: UnderStrategy,
    model: nn.Module,
    inputs: ModelInputs,
    *args: object,
    **kwargs: object,
) -> object:
    """Return the loss, computed again under the strategy if it bypassed ours; later calls skip the first try."""
    session: NoiseSession = trainer.session
    if session.active and not session.history.passed_by:
        before, random_state, counters = session.progress_mark, RandomState(session.model), PassCounters(trainer)
        # Copied in the first step only, when there are none yet: a loss that calls ours must cost nothing.
        kept = not session.history.steps
        gradients = WeightGradients(session.bare_model, kept=kept)
        with unwatched(session):
            loss = front(model, copy_of(inputs), *args, **kwargs)
        if not passed_by_since(session, before):
            return loss
        session.history.passed_by = True
        random_state.restore()
        counters.rewind()
        if kept:
            gradients.restore()
        else:
            gradients.check(session.strategy.name)
    return under_strategy(front, model, inputs, *args, **kwargs)
