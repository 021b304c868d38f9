"""Whether a trainer's loss divides by the token count of the whole step that it is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from neft_zoo.passes.random_state import RandomState
from neft_zoo.training.pass_counters import PassCounters
from neft_zoo.training.watched_calls import unwatched

if TYPE_CHECKING:
    from transformers import Trainer

    from neft_zoo.training.session import NoiseSession

SAME = 1e-4  # relative difference of two equal losses, at most


def divides_by_count(trainer: Trainer, session: NoiseSession, loss_of: Callable[[Any], Any], count: Any) -> bool:
    """Return whether a loss divides by the count; it is run with the count and with twice as much, once per run.

    Many losses take the count and ignore it, such as those of classifiers and overrides that return the model's own,
    so that there is no other way to know.

    Args:
        trainer: the trainer of the step.
        session: of the trainer's model; what is found is kept in its history.
        loss_of: the loss of the batch without noise, given a count.
        count: number of graded tokens in the step.
    """
    history = session.history
    if history.divides is None:
        first, second = _values(trainer, session, loss_of, (count, 2 * count))
        if not first or not math.isfinite(first):  # a batch that shows nothing
            return True
        history.divides = not math.isclose(first, second, rel_tol=SAME)
    return history.divides


@torch.no_grad()
def _values(
    trainer: Trainer, session: NoiseSession, loss_of: Callable[[Any], Any], counts: tuple[Any, Any]
) -> list[float]:
    """Return the losses for counts, and leave random state and counters as they were."""
    random_state, counters, values = RandomState(session.model), PassCounters(trainer), []
    with session.suspended(), unwatched(session):
        for count in counts:
            loss = loss_of(count)
            values.append(float(loss[0] if isinstance(loss, tuple) else loss))
            random_state.restore()
            counters.rewind()
    return values
