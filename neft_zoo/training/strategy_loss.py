"""strategy_loss(): the loss of a `transformers.Trainer` under a strategy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from neft_zoo.passes.accumulation import KeptGraphs
from neft_zoo.training.engine_internals import accumulation_of, gradient_of, token_weight
from neft_zoo.training.hf_internals import is_nll
from neft_zoo.training.loss_scale import divides_by_count
from neft_zoo.training.own_loss import copy_of
from neft_zoo.training.pass_counters import PassCounters
from neft_zoo.training.progress import step_of
from neft_zoo.training.session import ModelInputs, NoiseSession
from neft_zoo.training.step_checks import warn_in_eval_mode

if TYPE_CHECKING:
    from transformers import Trainer


def strategy_loss(
    trainer: Trainer,
    session: NoiseSession,
    own_loss: Callable[..., Any],
    model: nn.Module,
    inputs: ModelInputs,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Return the loss under the strategy, with the outputs of the last pass if requested.

    Args:
        trainer: the trainer of the step.
        session: of the trainer's model.
        own_loss: a bound `compute_loss` that does not use the strategy.
        model, inputs, *args, **kwargs: the arguments of `compute_loss`.
    """
    if not session.active:
        warn_in_eval_mode(session)
        return own_loss(model, inputs, *args, **kwargs)
    given = dict(zip(("return_outputs", "num_items_in_batch"), args, strict=False)) | kwargs
    wants_outputs, num_items = bool(given.get("return_outputs")), given.get("num_items_in_batch")
    outputs, counters = None, PassCounters(trainer)

    def one_pass(inputs: ModelInputs) -> Tensor:
        nonlocal outputs
        counters.rewind()  # TRL counts tokens in every pass
        result = own_loss(model, inputs, *args, **kwargs)
        loss, outputs = result if isinstance(result, tuple) else (result, None)
        return loss

    def with_count(count: Any) -> Any:
        return own_loss(model, copy_of(inputs), **{**given, "num_items_in_batch": count})

    nll = is_nll(trainer, own_loss)
    # A step of one micro-batch divides by its own count either way; a compiled model would be compiled once more.
    one = session.compiled and trainer.args.gradient_accumulation_steps == 1 and trainer.args.world_size == 1
    needed = session.strategy.objective.hidden and num_items is not None and not nll and not one
    divides = not needed or divides_by_count(session, with_count, num_items, inputs.get("labels"), counters)
    # The caller may differentiate outputs of the last pass too.
    keeps = wants_outputs or session.reads(inputs)
    accumulation = KeptGraphs(gradient_of(trainer)) if keeps else accumulation_of(trainer, num_items)
    loss = session.loss(
        inputs,
        one_pass,
        **step_of(trainer.args, trainer.accelerator.state, trainer.state),
        token_weight=token_weight(trainer, num_items) if divides else None,
        nll=nll,
        accumulation=accumulation,
    )
    return (loss, outputs) if wants_outputs else loss
