"""Losses and divergences of logits, summed over chunks of positions: all logits at once would not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from neft_zoo.passes.divergences import Divergence, divergence
from neft_zoo.passes.lm_head import LanguageHead

if TYPE_CHECKING:
    from jaxtyping import Float, Int

# Enough for a matrix product at full speed, and little beside what a vocabulary of 128k words takes anyway.
POSITIONS_AT_A_TIME = 128

# Makes a number per position of the logits of every side, and of what else is known of the positions.
Part: TypeAlias = Callable[..., Tensor]


def sum_in_chunks(part: Part, head: LanguageHead, sides: list[Tensor], *known: Tensor, trains: bool = True) -> Tensor:
    """Return the sum over positions of what `part` makes of the logits of hidden states.

    Args:
        part: a function of the logits of a chunk, one tensor per side, and of what is known of it.
        head: projects hidden states (N, D) to logits.
        sides: hidden states of the same positions.
        known: more tensors with one row per position, which get no gradient.
        trains: the head gets gradients, where its weights want some.
    """
    if head.is_one_product():
        weight, bias = head.project.weight, head.project.bias
        if not trains:
            weight, bias = weight.detach(), None if bias is None else bias.detach()
        return _Sum.apply(part, head.finish, known, weight, bias, *sides)
    count = len(sides)

    def projected(*chunk: Tensor) -> Tensor:
        return part(*map(head, chunk[:count]), *chunk[count:]).sum()

    chunks = zip(*(each.split(POSITIONS_AT_A_TIME) for each in (*sides, *known)), strict=True)
    parts = [checkpoint(projected, *chunk, use_reentrant=False) for chunk in chunks]
    return sum(parts, start=sides[0].new_zeros((), dtype=torch.float32))


class _Sum(torch.autograd.Function):
    """The sum, whose gradients are made along with it: no logits are kept, and none are computed twice."""

    @staticmethod
    def forward(
        ctx: Any, part: Part, finish: Callable, known: tuple, weight: Tensor, bias: Tensor | None, *sides: Tensor
    ) -> Tensor:
        wanted = ctx.needs_input_grad[3:]
        grads = [
            torch.zeros_like(each) if want and each is not None else None
            for each, want in zip((weight, bias, *sides), wanted, strict=True)
        ]
        total = torch.zeros((), device=weight.device)
        for first in range(0, len(sides[0]), POSITIONS_AT_A_TIME):
            place = slice(first, first + POSITIONS_AT_A_TIME)
            raw = [linear(side[place], weight, bias).requires_grad_(any(wanted)) for side in sides]
            with torch.enable_grad():
                value = part(*map(finish, raw), *(each[place] for each in known)).sum()
            total += value.detach()
            if any(wanted):
                slopes = torch.autograd.grad(value, raw, allow_unused=True)
                for side, slope, grad in zip(sides, slopes, grads[2:], strict=True):
                    _add_gradients(slope, side[place], weight, grads[:2], None if grad is None else grad[place])
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:
        return None, None, None, *(None if each is None else each * outer[0].to(each) for each in ctx.saved_tensors)


def _add_gradients(
    slope: Tensor | None, rows: Tensor, weight: Tensor, of_head: list[Tensor | None], of_rows: Tensor | None
) -> None:
    """Add what the gradient at a chunk's raw logits (N, V) means for weight, bias and hidden states."""
    if slope is None:  # a side that is held constant
        return
    of_weight, of_bias = of_head
    if of_rows is not None:
        of_rows.copy_(slope @ weight.to(slope.dtype))
    if of_weight is not None and of_weight.dtype == slope.dtype:
        of_weight.addmm_(slope.T, rows.to(slope.dtype))
    elif of_weight is not None:
        of_weight.add_(slope.T @ rows.to(slope.dtype))
    if of_bias is not None:
        of_bias.add_(slope.sum(0))


def cross_entropy(logits: Float[Tensor, "N V"], targets: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Return the negative log-likelihood of the targets, 0 where there is none."""
    return nn.functional.cross_entropy(logits, targets, reduction="none")


def of_divergence(
    name: Divergence, constant: bool, first: Float[Tensor, "N V"], second: Float[Tensor, "N V"]
) -> Float[Tensor, " N"]:
    """Return the divergence, through which no gradient flows into a constant first side."""
    return divergence(name, first.detach() if constant else first, second)


@dataclass(frozen=True)
class JointLoss:
    """Own losses of passes, and what else a part makes of the same logits.

    Attributes:
        part: what else.
        sides: how many passes there are.
        losses: by the number of the pass, the factor of its loss.
        weight: the factor of what the part makes.
    """

    part: Part
    sides: int
    losses: Mapping[int, float | Tensor]
    weight: float | Tensor

    def __call__(self, *chunk: Tensor) -> Float[Tensor, " N"]:
        """Take the logits of every side, the targets, which positions the part counts, and what else it is told."""
        logits, (targets, counted, *known) = chunk[: self.sides], chunk[self.sides :]
        own = [share * cross_entropy(logits[number], targets) for number, share in self.losses.items()]
        return sum(own, start=self.weight * self.part(*logits, *known) * counted)
