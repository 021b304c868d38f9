"""Checks that a step trained the model under its strategy."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from neft_zoo.errors import NoiseError
from neft_zoo.passes.anatomy import base_model
from neft_zoo.training.session import NoiseSession

# The gradients that a step has come to; an engine may keep them where only it finds them.
Gradients: TypeAlias = Iterable[Tensor | None]


def passed_by_since(session: NoiseSession, since: tuple[int, int], gradients: Gradients = ()) -> bool:
    """Return whether the model was called with gradients since a progress mark, but never under the strategy.

    Args:
        session: the session of the model.
        since: the progress mark.
        gradients: of the step. They reveal calls that no hook sees, such as calls of `forward`; those of a loss that
            skips a batch are zero or missing.
    """
    steps, clean_calls = session.progress_mark
    strategy = session.strategy
    changes_every_step = not strategy.clean or (strategy.weights is not None and strategy.weights.every_step)
    # Calls of a compiled model are not counted.
    uncounted = session.compiled or strategy.clean
    if not changes_every_step or steps != since[0]:
        return False
    seen = uncounted or clean_calls > since[1]
    return seen or any(gradient is not None and bool(gradient.any()) for gradient in gradients)


def gradients_of(session: NoiseSession) -> Gradients:
    """Yield the gradients of a session's model, None for weights without one."""
    return (weight.grad for weight in session.bare_model.parameters())


def check_went_through(session: NoiseSession, since: tuple[int, int], where: str, gradients: Gradients = ()) -> None:
    """Raise if the model was called with gradients, but never under the strategy.

    Args:
        session: the session of the model.
        since: the progress mark to compare with.
        where: the function that has run since, for the message.
        gradients: of the step.

    Raises:
        NoiseError: if the strategy was bypassed.
    """
    if passed_by_since(session, since, gradients):
        raise NoiseError(
            f"{where} must call compute_loss, in train mode, for the noise of {session.strategy.name} to reach the "
            f"model, got a step in which {type(base_model(session.bare_model)).__name__} was trained without it."
        )


def warn_in_eval_mode(session: NoiseSession) -> None:
    """Warn, once, if the model would be trained in eval mode, in which no noise is added."""
    idle = not session.model.training and torch.is_grad_enabled() and not session.strategy.clean
    if idle and not session.history.steps and not session.history.warned:
        session.history.warned = True
        warnings.warn(
            f"{type(base_model(session.bare_model)).__name__} is in eval mode, as from_pretrained leaves it, so "
            f"{session.strategy.name} adds nothing: call .train() on it to train with noise.",
            stacklevel=4,
        )


def warn_if_trained(session: NoiseSession, loss: object) -> None:
    """Warn, once, if a loss in eval mode is differentiated after steps in train mode.

    An evaluation between steps leaves the model in eval mode, and most of them take no gradients.
    """
    idle = session.history.steps and not session.history.warned and not session.strategy.clean
    if idle and not session.model.training and isinstance(loss, Tensor) and loss.requires_grad:
        loss.register_hook(partial(_warn_of_gradient, session))


def _warn_of_gradient(session: NoiseSession, gradient: Tensor) -> None:
    if not session.history.warned:
        session.history.warned = True
        warnings.warn(
            f"{type(base_model(session.bare_model)).__name__} is trained in eval mode, as an evaluation leaves it, "
            f"where {session.strategy.name} adds nothing: call .train() on it before it is trained further.",
            stacklevel=2,
        )
