"""Losses that weigh or regularize single tokens, in place of the likelihood: baselines that need no noise."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import as_tensor, no_grad
from torch.nn import functional

from neft_zoo.errors import NoiseError, did_you_mean, shown
from neft_zoo.noise.batch import IGNORED
from neft_zoo.training.hf_internals import NLL

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor
    from transformers import Trainer

TOP = 20  # tokens whose entropy is EAFT's weight
BETA = 0.7  # temperature of GEM's second distribution


def eaft(
    outputs: Any, labels: Int[Tensor, "B L"], num_items_in_batch: Tensor | int | None = None
) -> Float[Tensor, ""]:
    """Return the cross-entropy of each token times the entropy of the prediction: Entropy-Adaptive Fine-Tuning.

    The weight is the entropy of the 20 most likely tokens over its maximum, ln 20, without gradients. So a prediction
    that is sure of another token changes little. https://arxiv.org/abs/2601.02151

    Args:
        outputs: of the model, with logits.
        labels: -100 where nothing is graded.
        num_items_in_batch: number of graded tokens in the optimizer step; None for those of this batch.
    """
    logits, targets = _graded(outputs, labels)
    with no_grad():
        likeliest = logits.topk(min(TOP, logits.shape[-1]), -1).values.log_softmax(-1)
        weight = -(likeliest.exp() * likeliest).sum(-1) / math.log(likeliest.shape[-1])
    return _mean(functional.cross_entropy(logits, targets, reduction="none") * weight, num_items_in_batch)


def gem(outputs: Any, labels: Int[Tensor, "B L"], num_items_in_batch: Tensor | int | None = None) -> Float[Tensor, ""]:
    """Return the loss of GEM, reverse KL divergence with entropy regularization, with a linear h.

    It is -log p(label) + sum of q log p over the vocabulary, where q is the prediction at temperature 0.7, without
    gradients. https://arxiv.org/abs/2408.16673

    Args:
        outputs: of the model, with logits.
        labels: -100 where nothing is graded.
        num_items_in_batch: number of graded tokens in the optimizer step; None for those of this batch.
    """
    logits, targets = _graded(outputs, labels)
    log_p = logits.log_softmax(-1)
    q = (logits.detach() / BETA).softmax(-1)
    return _mean((q * log_p).sum(-1) - log_p.gather(-1, targets[:, None])[:, 0], num_items_in_batch)


TOKEN_LOSSES: dict[str, Callable[..., Float[Tensor, ""]]] = {"eaft": eaft, "gem": gem}


def check_token_loss(name: object, loss_type: str, label_smoothing: float) -> None:
    """Raise unless a config's token loss exists and is its only loss.

    Raises:
        NoiseError: if it does not, or with another loss or label smoothing, one of which would be ignored.
    """
    if name is None:
        return
    if name not in TOKEN_LOSSES:
        hint = did_you_mean(str(name), TOKEN_LOSSES)
        raise NoiseError(f"token_loss must be {' or '.join(TOKEN_LOSSES)}, got {shown(name)}{hint}")
    if loss_type not in NLL or label_smoothing:
        other = f"label_smoothing_factor {label_smoothing}" if label_smoothing else f"loss_type {loss_type!r}"
        raise NoiseError(f"token_loss must be the only loss, got {name!r} and {other}.")


@contextmanager
def token_loss(arguments: dict[str, Any]) -> Iterator[None]:
    """Add the token loss of a config to a trainer's arguments, and ignore TRL's advice inside of the context.

    TRL warns that `compute_loss_func` will be removed, which concerns those who pass a function themselves.
    """
    name = getattr(arguments.get("args"), "token_loss", None)
    if name is None:
        yield
        return
    arguments["compute_loss_func"] = arguments.get("compute_loss_func") or TOKEN_LOSSES[name]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`compute_loss_func` is deprecated", FutureWarning)
        yield


def check_used(trainer: Trainer) -> None:
    """Raise unless a trainer has the token loss of its config; a trainer of TRL's own ignores it.

    Raises:
        NoiseError: if it has another one, or if the model has an auxiliary loss, which TRL would leave out.
    """
    name = getattr(trainer.args, "token_loss", None)
    if name is not None and getattr(trainer, "aux_loss_enabled", False):
        raise NoiseError(
            f"router_aux_loss_coef must be 0 with token_loss {name!r}, which is the only loss, got a router with a "
            "loss of its own."
        )
    if name is not None and getattr(trainer, "compute_loss_func", None) is not TOKEN_LOSSES[name]:
        kind = type(trainer).__name__
        raise NoiseError(f"token_loss needs neft_zoo.SFTTrainer without a loss of its own, got {name!r} and a {kind}.")


def _graded(outputs: Any, labels: Int[Tensor, "B L"]) -> tuple[Float[Tensor, "N V"], Int[Tensor, " N"]]:
    """Return logits in float32 and labels of the graded tokens."""
    logits = outputs.logits[:, -labels.shape[1] :]  # prompt tuning prepends virtual tokens
    graded = labels[:, 1:] != IGNORED
    return logits[:, :-1][graded].float(), labels[:, 1:][graded]


def _mean(losses: Float[Tensor, " N"], count: Tensor | int | None) -> Float[Tensor, ""]:
    # A step may grade nothing: its loss is 0, as TRL's, and not 0 / 0.
    return losses.sum() / as_tensor(len(losses) if count is None else count).clamp(min=1)
