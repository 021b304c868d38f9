"""What a host's own loss is given, and what it must return and leave alone where it is run several times."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch import Tensor, nn

from neft_zoo.errors import NoiseError

# A model's keyword arguments.
Inputs: TypeAlias = Mapping[str, Any]
ModelInputs: TypeAlias = dict[str, Any]  # the same, to be written into
# A host's own loss of one pass.
Compute: TypeAlias = Callable[[ModelInputs], Tensor]


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


class OwnLoss:
    """A host's own loss of one batch, as the passes of a step call it.

    Args:
        compute: the loss.
        inputs: its arguments, copied for every pass.
        model: a model.
        repeats: name of a strategy that runs it several times a step; None for one pass.
    """

    def __init__(self, compute: Compute, inputs: Inputs, model: nn.Module, repeats: str | None) -> None:
        self.compute, self.inputs, self.model, self.repeats = compute, inputs, model, repeats

    def __call__(self, ids: Tensor | None, labels: Tensor | None = None) -> Tensor:
        """Return the loss, with other token ids or labels if they are given.

        Raises:
            NoiseError: if it cannot be one of several passes.
        """
        gradients = None if self.repeats is None else WeightGradients(self.model)
        loss = self.compute(changed(self.inputs, {"input_ids": ids, "labels": labels}))
        if gradients is not None and self.repeats is not None:
            gradients.check(self.repeats)
            check_value(loss, self.repeats)
        return loss
