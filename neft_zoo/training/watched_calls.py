"""Noise in model calls outside of a session's own loss, where every call is one pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor

from neft_zoo.noise.additive import TokenEdit
from neft_zoo.objectives.simple import SinglePass
from neft_zoo.passes.call_reader import CallReader
from neft_zoo.passes.records import Pass
from neft_zoo.passes.step import Step
from neft_zoo.registry.strategy import Strategy
from neft_zoo.training.session import NoiseSession


def several_passes(strategy: Strategy) -> bool:
    """Return whether a strategy needs more than noise in the pass of the host's loss."""
    # With one pass too, an ascent projects its start, and other objectives have a loss of their own.
    return type(strategy.objective) is not SinglePass or isinstance(strategy.noise, TokenEdit)


def watch(session: NoiseSession, key: int, progress: float) -> None:
    """Also add a session's noise in model calls outside of `session.loss`, until `unwatch`.

    A strategy that is more than noise in one pass adds none there.

    Args:
        session: the session of the model; its hooks are set.
        key: random key of the optimizer step.
        progress: fraction of training done, in [0, 1].
    """
    session.attach()
    session.batch.enter_step(key, progress)
    calls = _calls(session)
    if calls is not None and not several_passes(session.strategy):
        assert session.noise is not None and not isinstance(session.noise, TokenEdit)
        calls.watch(session.noise, partial(_record, session))


def unwatch(session: NoiseSession) -> None:
    """Stop adding noise in calls outside of a session's loss."""
    calls = _calls(session)
    if calls is not None:
        calls.unwatch()


@contextmanager
def unwatched(session: NoiseSession) -> Iterator[None]:
    """Keep calls outside of a session's loss clean inside this context."""
    calls = _calls(session)
    watched = None if calls is None else calls.watched
    unwatch(session)
    try:
        yield
    finally:
        calls = _calls(session)
        if watched is not None and calls is not None:
            calls.watch(*watched)


def _calls(session: NoiseSession) -> CallReader | None:
    """Return the reader of a session's model calls, or None if there are no hooks or no reader."""
    return None if session.hooks is None else session.hooks.calls


def _record(session: NoiseSession, done: Pass) -> None:
    """Count a watched call as a step."""
    assert session.hooks is not None
    step = Step(session.hooks, done.batch, _no_loss)
    step.add(done)
    session.record(step)


def _no_loss(ids: Tensor | None) -> Tensor:
    raise AssertionError("a watched call has no further passes")
