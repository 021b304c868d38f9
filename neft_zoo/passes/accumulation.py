"""How the parts of a step's loss are differentiated, so that its passes need not all be held until the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from neft_zoo.errors import NoiseError

if TYPE_CHECKING:
    from jaxtyping import Float

# `torch.autograd.grad`, or what an engine needs in its place.
Gradient: TypeAlias = Callable[..., tuple[Tensor | None, ...]]


class Accumulation(Protocol):
    """Takes a part of a step's loss before the step's other passes are run."""

    def gradient(self, value: Tensor, leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the gradient of a value at leaves; no parameter gets one."""
        ...

    def part(self, part: Float[Tensor, ""], leaves: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        """Return what stands for a part of the loss in its sum, and the gradient of the part at leaves."""
        ...

    def total(self, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Return the loss of the step, given the sum of all parts."""
        ...

    def check(self) -> None:
        """Raise, once the next step begins, if the step cannot have been trained right."""


class KeptGraphs:
    """Keeps the graph of every part until the loss is differentiated."""

    def __init__(self, gradient: Gradient = torch.autograd.grad) -> None:
        self._gradient = gradient

    def gradient(self, value: Tensor, leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        return _filled(_gradients(self._gradient, value, leaves), leaves)

    def part(self, part: Float[Tensor, ""], leaves: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        gradients = _gradients(self._gradient, part, leaves, retain_graph=True) if leaves else ()
        return part, _filled(gradients, leaves)

    def total(self, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        return loss

    def check(self) -> None:
        """Nothing was taken before the loss was differentiated."""


class StoredGradients(KeptGraphs):
    """Differentiates a part at once, frees its graph, and keeps the gradients of its parameters.

    The loss that is returned is differentiable as if all graphs had been kept: its backward pass multiplies what was
    stored by the gradient that arrives. A host may scale the loss, add another to it, or drop it.

    Stored and last gradients are summed before they reach a parameter: over several micro-batches that rounds
    grad + (stored + last), where a backward pass for each part rounds (grad + stored) + last. With one micro-batch a
    step, both are the same bit for bit. Adding what is stored to `parameter.grad` first would restore that order,
    but `torch.autograd.grad` of the loss would then miss it.
    """

    def part(self, part: Float[Tensor, ""], leaves: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        if not part.requires_grad:
            return part, _filled((None,) * len(leaves), leaves)
        parameters = parameters_of(part)
        gradients = _gradients(self._gradient, part, [*leaves, *parameters], allow_unused=True)
        stored = _Stored.apply(part.detach(), gradients[len(leaves) :], *parameters)
        return stored, _filled(gradients[: len(leaves)], leaves)


class EngineBackward:
    """Backpropagates a part at once through an engine that splits the weights and reduces their gradients itself.

    What the engine has accumulated cannot be scaled any more, so a loss that is differentiated with another factor
    than its parts were is an error, and so is one that never is.

    Args:
        backward: of the engine.
        gradient: `torch.autograd.grad`, or what the engine needs in its place.
        engine: its name.
    """

    def __init__(self, backward: Callable[[Tensor], None], gradient: Gradient, engine: str) -> None:
        self.engine, self._backward, self._gradient = engine, backward, gradient
        self.factors: list[Tensor] = []
        self.pending = False

    def gradient(self, value: Tensor, leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        return _filled(_gradients(self._gradient, value, leaves), leaves)

    def part(self, part: Float[Tensor, ""], leaves: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        for leaf in leaves:
            leaf.grad = None
            leaf.retain_grad()  # a perturbation that was moved before is a product, and no leaf of the graph
        self.pending = True
        self._backward(_Observed.apply(part, self.factors.append))
        return part.detach(), _filled([leaf.grad for leaf in leaves], leaves)

    def total(self, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        return _Observed.apply(loss, self._compare) if self.pending else loss

    def check(self) -> None:
        """Raise if the loss of a step was never differentiated.

        Raises:
            NoiseError: if only its earlier passes were.
        """
        if self.pending:
            raise NoiseError(
                f"the loss that compute_loss returned must be differentiated under {self.engine}, which has taken the "
                "gradients of earlier passes: choose DDP to skip batches."
            )

    def _compare(self, factor: Tensor) -> None:
        self.pending = False
        taken = self.factors[-1]
        if not torch.allclose(factor.float(), taken.float(), rtol=1e-4):
            raise NoiseError(
                f"the loss that compute_loss returned must not be scaled under {self.engine}, which has taken the "
                f"gradients of earlier passes, got a factor of {float(factor / taken):.3g}: choose DDP."
            )


def parameters_of(value: Tensor) -> list[nn.Parameter]:
    """Return the parameters in the graph of a value: a loss may have some of its own, which no model holds."""
    leaves = (getattr(node, "variable", None) for node in _nodes_of(value))  # of nodes that accumulate into a leaf
    return list({id(leaf): leaf for leaf in leaves if isinstance(leaf, nn.Parameter)}.values())


def _nodes_of(value: Tensor) -> Iterator[Any]:
    """Yield the nodes of a value's graph."""
    pending, visited = [value.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        yield node
        pending.extend(following for following, _ in node.next_functions)


def _gradients(gradient: Gradient, value: Tensor, at: Sequence[Tensor], **how: bool) -> tuple[Tensor | None, ...]:
    """Return the gradients of a value at tensors.

    A model may checkpoint in its own code, or be told to after the noise was attached, so that torch says it first:
    https://github.com/pytorch/pytorch/blob/v2.13.0/torch/utils/checkpoint.py

    Raises:
        NoiseError: if a part of the graph is checkpointed in the form that allows one backward pass only.
    """
    try:
        return gradient(value, list(at), **how)
    except RuntimeError:
        if any(node.name() == "CheckpointFunctionBackward" for node in _nodes_of(value)):
            raise NoiseError(
                "use_reentrant must be false with a strategy that differentiates more than once a step, got a model "
                "that is checkpointed with true."
            ) from None
        raise


def _filled(gradients: Sequence[Tensor | None], leaves: Sequence[Tensor]) -> list[Tensor]:
    pairs = zip(gradients, leaves, strict=True)
    return [torch.zeros_like(leaf) if gradient is None else gradient for gradient, leaf in pairs]


class _Stored(torch.autograd.Function):
    """A value whose gradients at its parameters are known, and no higher derivative."""

    @staticmethod
    def forward(ctx, value: Tensor, gradients: tuple[Tensor | None, ...], *parameters: nn.Parameter) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx, *outer: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # as in a penalty on the gradient, which would miss the graphs that are gone
            raise NoiseError(
                "the loss of a step of several passes must be differentiated once, got create_graph=True: its earlier "
                "passes keep no graph."
            )
        return None, None, *(None if each is None else each * outer[0].to(each.dtype) for each in ctx.gradients)


class _Observed(torch.autograd.Function):
    """A value that hands the gradient which arrives at it to a function."""

    @staticmethod
    def forward(ctx, value: Tensor, observe: Callable[[Tensor], None]) -> Tensor:
        ctx.observe = observe
        return value.view_as(value)

    @staticmethod
    def backward(ctx, *outer: Tensor) -> tuple[Tensor | None, ...]:
        ctx.observe(outer[0])
        return outer[0], None
