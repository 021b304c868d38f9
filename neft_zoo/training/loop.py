"""attach(): noise in a custom training loop (a module named `attach` would hide the function)."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from neft_zoo.errors import NoiseError, NoiseWarning, shown
from neft_zoo.noise.batch import step_key
from neft_zoo.noise.schedules import Schedule, check_number
from neft_zoo.passes.torch_internals import in_backward
from neft_zoo.registry.entries import make
from neft_zoo.registry.strategy import Strategy
from neft_zoo.training.checks import check_wrapped
from neft_zoo.training.loss_scale import divides_by_count
from neft_zoo.training.own_loss import copy_of
from neft_zoo.training.session import Inputs, ModelInputs, NoiseSession
from neft_zoo.training.step_checks import warn_if_trained, warn_in_eval_mode
from neft_zoo.training.vocabulary import named_token_ids

if TYPE_CHECKING:
    from jaxtyping import Int

    from neft_zoo.passes.weight_noise import WeightNoise

COUNT = "num_items_in_batch"
Loss = Callable[[nn.Module, ModelInputs], Tensor]


def model_loss(model: nn.Module, inputs: ModelInputs) -> Tensor:
    """Return the loss that a transformers model computes if it gets labels.

    Raises:
        NoiseError: if the batch is not the model's arguments, or the model returns no loss.
    """
    if not isinstance(inputs, Mapping):
        raise NoiseError(
            f"a batch must be the model's arguments by name, or pass compute=, got {type(inputs).__name__}."
        )
    output: Any = model(**inputs)
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if isinstance(output, tuple) and inputs.get("labels") is not None:  # without return_dict the loss comes first
        loss = output[0]
    if loss is None:
        raise NoiseError(f"model must return a loss: give the batch labels, or pass compute=, got {sorted(inputs)}.")
    return loss


def whole(name: str, value: object, low: int | None = None) -> int:
    """Return a whole number, of Python or of a library, as Python's.

    Raises:
        NoiseError: if it is none, or below the lowest accepted one.
    """
    try:
        number = operator.index(value)  # pyright: ignore[reportArgumentType]
    except TypeError:
        number = None
    if number is None or (low is not None and number < low):
        raise NoiseError(f"{name} must be a whole number{'' if low is None else f' >= {low}'}, got {shown(value)}.")
    return number


class Attached:
    """A strategy attached to a model; see `attach`."""

    def __init__(self, session: NoiseSession, total_steps: int, seed: int, rank: int) -> None:
        self.session, self.total_steps, self.seed, self.rank = session, total_steps, seed, rank
        self.model, self.strategy = session.model, session.strategy
        self.step = 0
        self.measured: dict[str, float] = {}
        self._is_over = False  # whether it was said that the schedule is at its end
        self._have_begun = self._are_changed = False  # the weights, by the strategy
        self._is_warned = False

    def loss(self, inputs: Inputs, step: int | None = None, compute: Loss = model_loss) -> Tensor:
        """Return the loss of a batch under the strategy; call `backward` on it as usual.

        In eval mode, or without gradients, it is the clean loss.

        Args:
            inputs: the model's keyword arguments, including labels. With gradient accumulation, give the number of
                graded tokens in the whole step as `num_items_in_batch`, which most models divide their loss by.
            step: optimizer step, from 0; None counts the calls. Pass it with gradient accumulation and after a resume.
                Calls with the same step draw the same noise for the same document.
            compute: the loss of one pass, if it is not the model's own.
        """
        if not self.model.training or not torch.is_grad_enabled():  # only training advances the step
            warn_in_eval_mode(self.session)
            loss = compute(self.model, copy_of(inputs))
            warn_if_trained(self.session, loss)
            return loss
        self._enter(step)
        self._warn_of_weights()
        key, progress = step_key(self.seed, self.rank, self.step), self._progress()
        with named_token_ids(self.session.bare_model, inputs, self.session.tokenizer):
            loss = self.session.loss(
                inputs,
                lambda given: compute(self.model, given),
                key=key,
                progress=progress,
                token_weight=self._token_weight(inputs, compute),
            )
        self.measured = self.session.stats.take()
        self.step += 1
        return loss

    def begin(self) -> None:
        """Change the weights once, if the strategy does so; do not call it after a resume."""
        self._have_begun = True
        if self.strategy.weights is not None:
            self.strategy.weights.begin(self.session.bare_model, step_key(self.seed, 0, 0))

    def perturbed(self, step: int | None = None) -> AbstractContextManager[None]:
        """Return a context for forward and backward in which the weights have the strategy's noise.

        Args:
            step: optimizer step, as in `loss`; pass it here too with gradient accumulation and after a resume.

        Raises:
            NoiseError: if an optimizer changes the weights inside, where they are restored at the end.
        """
        self._enter(step)
        return nullcontext() if self.strategy.weights is None else self._around(self.strategy.weights)

    @contextmanager
    def _around(self, weights: WeightNoise) -> Iterator[None]:
        key, before = step_key(self.seed, 0, self.step), self._are_changed
        with weights.around(self.session.bare_model, key, self._progress()):
            self._are_changed = True
            try:
                yield
            finally:
                self._are_changed = before

    def detach(self) -> None:
        """Remove the noise; the model is then unchanged."""
        self.session.detach()

    def _token_weight(self, inputs: Inputs, compute: Loss) -> Tensor | float | None:
        """Return 1 / `num_items_in_batch` if the batch has it and the loss divides by it, so that its terms do too."""
        count = inputs.get(COUNT) if isinstance(inputs, Mapping) else None
        if count is None or not self.strategy.objective.hidden:
            return None

        def with_count(value: Any) -> Tensor:
            return compute(self.model, {**copy_of(inputs), COUNT: value})

        return 1 / count if divides_by_count(self.session, with_count, count, inputs.get("labels")) else None

    def _warn_of_weights(self) -> None:
        """Warn once if the weights are without the strategy's noise."""
        weights, name = self.strategy.weights, self.strategy.name
        if weights is None or self._is_warned:
            return
        if weights.every_step and not self._are_changed:
            message = f"{name} adds no noise: call loss() and backward() inside of `with handle.perturbed():`."
        elif not weights.every_step and not self._have_begun and self.step == 0:
            message = f"{name} adds no noise: call begin() before step 0, or give loss() its step= after a resume."
        else:
            return
        self._is_warned = True
        warnings.warn(message, NoiseWarning, stacklevel=3)

    def _enter(self, step: int | None) -> None:
        """Go to a step; None stays at the one that the calls have been counted to."""
        if step is None and in_backward():
            raise NoiseError("step must be given where a loss is computed again in the backward pass, got None.")
        self.step = self.step if step is None else whole("step", step, 0)
        scheduled = any(isinstance(value, Schedule) for value in self.strategy.arguments.values())
        if self.step >= self.total_steps and scheduled and not self._is_over:
            self._is_over = True
            warnings.warn(
                f"step {self.step} is after the last one of total_steps={self.total_steps}, so the schedule of "
                f"{self.strategy.name} is at its end: give loss() its step= where several calls make one.",
                NoiseWarning,
                stacklevel=3,
            )

    def _progress(self) -> float:
        return min(1.0, self.step / self.total_steps)

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, *exception: object) -> None:
        self.detach()


def attach(
    model: nn.Module,
    noise: str | Mapping[str, object] | Strategy,
    *,
    total_steps: int,
    seed: int = 0,
    rank: int = 0,
    tokenizer: object = None,
    token_counts: Int[Tensor, " V"] | None = None,
) -> Attached:
    """Attach a strategy to a model in a custom training loop (accelerate, plain torch).

    Args:
        model: a transformers or PEFT model; in several processes, the wrapper that averages its gradients (DDP, FSDP,
            DeepSpeed).
        noise: a strategy's name, a mapping with `name` and arguments, or a `Strategy`.
        total_steps: optimizer steps of the whole run, for schedules.
        seed: seed of the noise; the global random state is not used.
        rank: data-parallel rank, so that ranks draw different noise.
        tokenizer: for strategies that spare special tokens or insert the mask token.
        token_counts: count of each token in the training data, for `token_frequency`.

    Raises:
        NoiseError: if the noise or a number is invalid, the model has no token embedding, or its gradients would not
            be averaged.

    Example:
        >>> handle = attach(model, "neft_uniform", total_steps=1000)  # doctest: +SKIP
        >>> handle.loss(batch).backward()  # doctest: +SKIP
    """
    check_number("total_steps", total_steps, 1)
    seed, rank = whole("seed", seed), whole("rank", rank)
    strategy = make(noise)
    check_wrapped(model)
    session = NoiseSession(model, strategy, tokenizer=tokenizer, token_counts=token_counts)
    return Attached(session, total_steps, seed, rank)
