"""Losses and divergences of logits, summed over chunks of positions, since all logits at once may not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from neft_zoo.passes.divergences import Divergence, divergence
from neft_zoo.passes.lm_head import LanguageHead
from neft_zoo.passes.random_state import RandomState

if TYPE_CHECKING:
    from jaxtyping import Float, Int

# Large enough for matrix products at full speed, and small compared to what a vocabulary of 128k words needs anyway.
POSITIONS_AT_A_TIME = 128

# Returns a number per position, given the logits of one or more passes and further tensors for these positions.
LogitsFunction: TypeAlias = Callable[..., Tensor]


def sum_in_chunks(
    function: LogitsFunction,
    head: LanguageHead,
    hidden: list[Tensor],
    *aligned: Tensor,
    trains: bool = True,
    same_dropout: bool = True,
) -> Float[Tensor, ""]:
    """Return the sum over positions of a function of logits.

    Args:
        function: takes the logits of a chunk of positions, one tensor per pass, and the same chunk of `aligned`.
        head: projects hidden states (N, D) to logits.
        hidden: the hidden states of each pass (N, D).
        aligned: further tensors with one row per position (N, ...), without gradient.
        trains: whether the head's trainable weights get gradients.
        same_dropout: whether dropout in the head, as of an adapter, has one mask for all passes.
    """
    if head.is_one_product():
        weight, bias = head.project.weight, head.project.bias
        if not trains:
            weight, bias = weight.detach(), None if bias is None else bias.detach()
        return _SumWithGradients.apply(function, head.finish, aligned, weight, bias, *map(head.cast, hidden))
    passes = len(hidden)

    def of_chunk(*chunk: Tensor) -> Tensor:
        return function(*_project(head, chunk[:passes], same_dropout), *chunk[passes:]).sum()

    chunks = zip(*(tensor.split(POSITIONS_AT_A_TIME) for tensor in (*hidden, *aligned)), strict=True)
    sums = [checkpoint(of_chunk, *chunk, use_reentrant=False) for chunk in chunks]
    return sum(sums, start=hidden[0].new_zeros((), dtype=torch.float32))


def _project(head: LanguageHead, hidden: Sequence[Tensor], same_dropout: bool) -> list[Tensor]:
    """Return the logits of every pass for a chunk of positions."""
    start = RandomState(head.project) if same_dropout and head.has_dropout() else None
    logits = []
    for states in hidden:
        if start is not None:
            start.restore()
        logits.append(head(states))
    return logits


class _SumWithGradients(torch.autograd.Function):
    """A sum whose gradients are computed in the forward pass, so that no logits are kept or computed twice."""

    @staticmethod
    def forward(
        ctx: Any,
        function: LogitsFunction,
        finish: Callable[[Tensor], Tensor],
        aligned: tuple[Tensor, ...],
        weight: Tensor,
        bias: Tensor | None,
        *hidden: Tensor,
    ) -> Tensor:
        wanted = ctx.needs_input_grad[3:]
        tensors = (weight, bias, *hidden)
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in tensors]
        # The head's gradients are summed over all chunks: in 16 bits, late ones would be rounded away.
        kinds = [torch.promote_types(weight.dtype, torch.float32)] * 2 + ctx.dtypes[2:]
        grads = [
            torch.zeros_like(tensor, dtype=kind) if needed and tensor is not None else None
            for tensor, needed, kind in zip(tensors, wanted, kinds, strict=True)
        ]
        total = torch.zeros((), device=weight.device)
        for first in range(0, len(hidden[0]), POSITIONS_AT_A_TIME):
            chunk = slice(first, first + POSITIONS_AT_A_TIME)
            projected = [linear(states[chunk], weight, bias).requires_grad_(any(wanted)) for states in hidden]
            with torch.enable_grad():
                value = function(*map(finish, projected), *(tensor[chunk] for tensor in aligned)).sum()
            total += value.detach()
            if any(wanted):
                of_logits = torch.autograd.grad(value, projected, allow_unused=True)
                for states, of_projected, of_states in zip(hidden, of_logits, grads[2:], strict=True):
                    rows = None if of_states is None else of_states[chunk]
                    _add_gradients(of_projected, states[chunk], weight, grads[:2], rows)
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        # The factor, 1 over the number of tokens, would be rounded to 16 bits too.
        wide = torch.promote_types(outer[0].dtype, torch.float32)
        grads = (
            None if grad is None else (grad.to(wide) * outer[0].to(wide)).to(dtype)
            for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return None, None, None, *grads


def _add_gradients(
    of_projected: Tensor | None,
    states: Tensor,
    weight: Tensor,
    of_head: list[Tensor | None],
    of_states: Tensor | None,
) -> None:
    """Add the gradients of weight, bias and hidden states, given the gradient of a chunk's projection (N, V)."""
    if of_projected is None:  # a pass whose logits are constant
        return
    of_weight, of_bias = of_head
    if of_states is not None:
        of_states.copy_(of_projected @ weight.to(of_projected.dtype))
    if of_weight is not None and of_weight.dtype == of_projected.dtype:
        of_weight.addmm_(of_projected.T, states.to(of_projected.dtype))
    elif of_weight is not None:
        of_weight.add_(of_projected.T @ states.to(of_projected.dtype))
    if of_bias is not None:
        of_bias.add_(of_projected.sum(0))


def cross_entropy(logits: Float[Tensor, "N V"], targets: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Return the negative log-likelihood of the targets, 0 where a target is -100."""
    return nn.functional.cross_entropy(logits, targets, reduction="none")


def of_divergence(
    name: Divergence, constant: bool, first: Float[Tensor, "N V"], second: Float[Tensor, "N V"]
) -> Float[Tensor, " N"]:
    """Return the divergence of two passes' logits; if `constant`, no gradient flows into the first."""
    return divergence(name, first.detach() if constant else first, second)


@dataclass(frozen=True)
class JointLoss:
    """The cross-entropy losses of several passes plus another function of the same logits.

    Attributes:
        function: the other function.
        passes: number of passes.
        losses: factor of each pass's cross-entropy, by the pass's number.
        weight: factor of the other function.
    """

    function: LogitsFunction
    passes: int
    losses: Mapping[int, float | Tensor]
    weight: float | Tensor

    def __call__(self, *chunk: Tensor) -> Float[Tensor, " N"]:
        """Return the sum at every position of a chunk.

        Args:
            chunk: the logits of every pass, the targets, a mask for the other function, and its further arguments.
        """
        logits, (targets, counted, *aligned) = chunk[: self.passes], chunk[self.passes :]
        own = [share * cross_entropy(logits[number], targets) for number, share in self.losses.items()]
        return sum(own, start=self.weight * self.function(*logits, *aligned) * counted)
