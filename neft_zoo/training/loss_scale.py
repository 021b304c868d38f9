"""Whether a loss divides by the token count of the whole step that it is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neft_zoo.noise.batch import IGNORED
from neft_zoo.passes.random_state import RandomState
from neft_zoo.training.pass_counters import PassCounters
from neft_zoo.training.watched_calls import unwatched

if TYPE_CHECKING:
    from neft_zoo.training.session import NoiseSession

SAME = 1e-4  # relative difference of two equal losses, at most


def divides_by_count(
    session: NoiseSession,
    loss_of: Callable[[Any], Any],
    count: Any,
    labels: object,
    counters: PassCounters | None = None,
) -> bool:
    """Return whether a loss divides by the count; it is run with the count and with twice as much, once per run.

    Many losses take the count and ignore it, such as those of classifiers and overrides that return the model's own,
    so that there is no other way to know.

    Args:
        session: of the model; what is found is kept in its history.
        loss_of: the loss of the batch without noise, given a count.
        count: number of graded tokens in the step.
        labels: of the batch; one without a graded token shows nothing.
        counters: of the trainer's passes, which are left as they were.
    """
    history = session.history
    if history.divides is None:
        if not _are_graded(labels):  # what else is in the loss, as a router's, may not depend on the count
            return True
        first, second = _values(session, loss_of, (count, 2 * count), counters)
        if not first or not math.isfinite(first):  # a batch that shows nothing
            return True
        history.divides = not math.isclose(first, second, rel_tol=SAME)
    return history.divides


def _are_graded(labels: object) -> bool:
    """Return whether labels grade anything; unknown ones may. Nothing predicts the first token of a row."""
    if not isinstance(labels, Tensor):
        return True
    return bool(((labels[:, 1:] if labels.dim() == 2 else labels) != IGNORED).any())


@torch.no_grad()
def _values(
    session: NoiseSession, loss_of: Callable[[Any], Any], counts: tuple[Any, Any], counters: PassCounters | None
) -> list[float]:
    """Return the losses for counts, and leave random state and counters as they were."""
    random_state, values = RandomState(session.model), []
    with session.suspended(), unwatched(session):
        for count in counts:
            loss = loss_of(count)
            values.append(float(loss[0] if isinstance(loss, tuple) else loss))
            random_state.restore()
            if counters is not None:
                counters.rewind()
    return values
