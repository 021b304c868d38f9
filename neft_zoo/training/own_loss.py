"""What a host's own loss is given, and what it must return and leave alone where it is run several times."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from neft_zoo.errors import NoiseError


def copy_of(inputs: Any) -> Any:
    """Return the inputs of a loss in a container of their own, as TRL writes into it.

    A collator may make something else than a model's arguments by name, such as a tuple of tensors.
    """
    return dict(inputs) if isinstance(inputs, Mapping) else copy.copy(inputs)


def changed(inputs: Any, values: Mapping[str, Tensor | None]) -> Any:
    """Return a copy of the inputs of a loss with other token ids or labels, where there are others.

    Raises:
        NoiseError: if there are, and the inputs have no names.
    """
    others = {name: value for name, value in values.items() if value is not None}
    if not others or isinstance(inputs, Mapping):
        return {**copy_of(inputs), **others} if others else copy_of(inputs)
    raise NoiseError(
        f"a batch must be a model's arguments by name for other {' and '.join(others)}, got {type(inputs).__name__}."
    )


def check_value(loss: object, strategy: str) -> None:
    """Raise unless the loss of one of several passes can be summed with the others.

    Raises:
        NoiseError: if it is no tensor of one number.
    """
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        what = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise NoiseError(
            f"the loss must be a tensor of one number with {strategy}, which runs several passes, got {what}."
        )


class WeightGradients:
    """The gradients that a model's weights have now, to be compared with or gone back to.

    A loss may call `backward` by itself, as for an auxiliary part.

    Args:
        model: a model.
        kept: whether to keep their values, which `restore` needs.
    """

    def __init__(self, model: nn.Module, *, kept: bool = False) -> None:
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._state = self._now()
        self._values = [None if each.grad is None or not kept else each.grad.clone() for each in self._weights]

    def check(self, strategy: str) -> None:
        """Raise if the gradients have changed since.

        Raises:
            NoiseError: if they have.
        """
        if self._now() != self._state:
            raise NoiseError(
                f"the loss must leave backward to its caller with {strategy}, which runs it several times a step, got "
                "gradients on the model's weights: return the sum of its parts, or take a strategy of one pass, such "
                "as neft_uniform."
            )

    def restore(self) -> None:
        """Go back to them."""
        if self._now() != self._state:
            for weight, value in zip(self._weights, self._values, strict=True):
                weight.grad = value

    def _now(self) -> list[tuple[int, int]]:
        grads = [weight.grad for weight in self._weights]
        return [(0, 0) if grad is None else (id(grad), grad._version) for grad in grads]
