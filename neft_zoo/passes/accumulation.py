"""Differentiating a step's loss in parts, so that its forward passes need not all be kept until the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from neft_zoo.errors import NoiseError
from neft_zoo.passes.torch_internals import without_hooks

if TYPE_CHECKING:
    from jaxtyping import Float

# `torch.autograd.grad`, or an engine's replacement of it.
Gradient: TypeAlias = Callable[..., tuple[Tensor | None, ...]]


class Accumulation(Protocol):
    """Differentiates a part of a step's loss before the step's other passes are run."""

    def gradient(self, value: Tensor, leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the gradient of a value with respect to leaves; parameters get no gradient."""
        ...

    def part(self, part: Float[Tensor, ""], leaves: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        """Return what replaces a part in the sum of the loss, and the gradient of the part with respect to leaves."""
        ...

    def total(self, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Return the loss of the step, given the sum of all parts."""
        ...

    def check(self) -> None:
        """Raise, when the next step begins, if the last step cannot have been trained correctly."""


class KeptGraphs:
    """Keeps the graphs of all parts until the loss is differentiated."""

    def __init__(self, gradient: Gradient = torch.autograd.grad) -> None:
        self._gradient = gradient

    def gradient(self, value: Tensor, leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        return _filled(_gradients(self._gradient, value, leaves), leaves)

    def part(self, part: Float[Tensor, ""], leaves: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        gradients = _gradients(self._gradient, part, leaves, retain_graph=True) if leaves else ()
        return part, _filled(gradients, leaves)

    def total(self, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        return loss

    @property
    def is_scaled(self) -> bool:
        """Whether gradients are computed with loss scaling, which skips a step whose gradients overflow."""
        return self._gradient is not torch.autograd.grad

    def at_once(self) -> StoredGradients:
        """Return an accumulation that differentiates parts immediately, by the same gradient function."""
        return StoredGradients(self._gradient)

    def check(self) -> None:
        """Do nothing: the whole loss is differentiated by the host."""


class StoredGradients(KeptGraphs):
    """Differentiates a part immediately, frees its graph, and stores the gradients of the parameters.

    The returned loss is differentiable as if all graphs had been kept: its backward pass multiplies the stored
    gradients by the incoming one. A host may scale the loss, add another loss to it, or drop it.

    The stored gradient and the last part's are summed before they reach a parameter. Over several micro-batches this
    rounds grad + (stored + last), whereas one backward pass per part rounds (grad + stored) + last. With one
    micro-batch per step, both are identical bit for bit. Adding the stored gradient to `parameter.grad` would restore
    that order, but then `torch.autograd.grad` of the loss would miss it.
    """

    def part(self, part: Float[Tensor, ""], leaves: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        if not part.requires_grad:
            return part, _filled((None,) * len(leaves), leaves)
        parameters = parameters_of(part)
        gradients = _gradients(self._gradient, part, [*leaves, *parameters], allow_unused=True)
        stored = _Stored.apply(part.detach(), gradients[len(leaves) :], *parameters)
        return stored, _filled(gradients[: len(leaves)], leaves)


class EngineBackward:
    """Backpropagates a part immediately through an engine that shards the weights and reduces their gradients itself.

    Gradients that the engine has accumulated cannot be rescaled. So it is an error if the loss is scaled differently
    from its parts, or is never differentiated.

    Args:
        backward: the engine's backward function.
        gradient: `torch.autograd.grad`, or the engine's replacement of it.
        engine: its name, for messages.
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
            leaf.retain_grad()  # an ascent's perturbation after its first step is a product, not a leaf
        self.pending = True
        self._backward(_Observed.apply(part, self.factors.append))
        return part.detach(), _filled([leaf.grad for leaf in leaves], leaves)

    def total(self, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        return _Observed.apply(loss, self._compare) if self.pending else loss

    def check(self) -> None:
        """Raise if the loss of a step was never differentiated.

        Raises:
            NoiseError: if only the step's earlier passes were differentiated.
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
    """Return the parameters in the graph of a value, including parameters of the loss that no model holds."""
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
    """Return the gradients of a value at tensors, whose hooks act once: on the whole gradient of a step.

    A model may checkpoint in its own code, or be told to after the noise was attached, so that torch says it first:
    https://github.com/pytorch/pytorch/blob/v2.13.0/torch/utils/checkpoint.py

    Raises:
        NoiseError: if a part of the graph is checkpointed in the form that allows one backward pass only.
    """
    try:
        with without_hooks(at):
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
    """A value with stored gradients for its parameters, without higher derivatives."""

    @staticmethod
    def forward(ctx, value: Tensor, gradients: tuple[Tensor | None, ...], *parameters: nn.Parameter) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx, *outer: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # as in a gradient penalty, which would miss the freed graphs
            raise NoiseError(
                "the loss of a step of several passes must be differentiated once, got create_graph=True: its earlier "
                "passes keep no graph."
            )
        return None, None, *(None if each is None else each * outer[0].to(each.dtype) for each in ctx.gradients)


class _Observed(torch.autograd.Function):
    """A value that passes its incoming gradient to a function."""

    @staticmethod
    def forward(ctx, value: Tensor, observe: Callable[[Tensor], None]) -> Tensor:
        ctx.observe = observe
        return value.view_as(value)

    @staticmethod
    def backward(ctx, *outer: Tensor) -> tuple[Tensor | None, ...]:
        ctx.observe(outer[0])
        return outer[0], None
