"""Divergences between two distributions over the next token, per token, in nats."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Divergence: TypeAlias = Literal["kl", "reverse_kl", "symmetric_kl", "js", "hellinger"]
DIVERGENCES: tuple[str, ...] = get_args(Divergence)


def divergence(name: Divergence, first: Float[Tensor, "N V"], second: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
    """Return the divergence between two tensors of logits, row by row.

    `kl` is KL(first || second), `reverse_kl` is KL(second || first), `symmetric_kl` their sum, `js` the Jensen-Shannon
    divergence (at most ln 2), `hellinger` the squared Hellinger distance 1 - sum sqrt(p q) (at most 1).
    """
    log_p, log_q = first.float().log_softmax(-1), second.float().log_softmax(-1)
    return _KINDS[name](log_p, log_q)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _symmetric_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)


def _js(log_p: Tensor, log_q: Tensor) -> Tensor:
    log_mean = log_p.logaddexp(log_q) - math.log(2)
    return (_kl(log_p, log_mean) + _kl(log_q, log_mean)) / 2


def _hellinger(log_p: Tensor, log_q: Tensor) -> Tensor:
    # Equal to 1 - sum sqrt(p q), but exactly 0 at p = q and never negative after rounding.
    return ((log_p / 2).exp() - (log_q / 2).exp()).square().sum(-1) / 2


_KINDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kl": _kl,
    "reverse_kl": lambda log_p, log_q: _kl(log_q, log_p),
    "symmetric_kl": _symmetric_kl,
    "js": _js,
    "hellinger": _hellinger,
}
