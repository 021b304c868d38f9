"""Changing weights for a part of a step, and restoring them bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from neft_zoo.errors import NoiseError

if TYPE_CHECKING:
    from torch import Tensor

STEPPED = (
    "the optimizer must step when the weights have no noise, got a step in which its changes would be lost: call "
    "optimizer.step() after `with perturbed():`, and use no optimizer that steps in the backward pass."
)


@contextmanager
def changing_weights() -> Iterator[Callable[..., None]]:
    """Yield a function to call on each weight before it is changed; all are restored, bit for bit, at the end.

    Its arguments are those of `put_back`.

    Raises:
        NoiseError: if an optimizer changes one of them, which would be lost.
    """
    from torch import clear_autocast_cache
    from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

    changed = set[int]()

    # A fused optimizer leaves the version of a weight as it is, so that `put_back` does not notice it.
    def check(optimizer: Optimizer, *arguments: object) -> None:
        if any(id(weight) in changed for group in optimizer.param_groups for weight in group["params"]):
            raise NoiseError(STEPPED)

    with ExitStack() as saved:
        clear_autocast_cache()  # an outer autocast keeps its casts of weights, also if their `.data` is changed
        saved.callback(clear_autocast_cache)
        saved.callback(register_optimizer_step_pre_hook(check).remove)

        def save(weight: Tensor, hidden: bool = False) -> None:
            changed.add(id(weight))
            saved.enter_context(put_back(weight, hidden))

        yield save


@contextmanager
def put_back(weight: Tensor, hidden: bool = False) -> Iterator[None]:
    """Save a weight and restore it, bit for bit.

    Args:
        weight: may be changed inside the context.
        hidden: whether copies and pickles made inside the context get the saved weight.

    Raises:
        NoiseError: if an optimizer has changed the weight, which would be lost.
    """
    from torch import nn

    saved, ways, version = weight.data.clone(), set[str](), weight._version
    if hidden:  # deepcopy and pickle look on the object before the class; a weight that is already hidden stays so
        twin = nn.Parameter(saved, weight.requires_grad)
        vars(twin).update(vars(weight))
        ways = {"__deepcopy__", "__reduce_ex__"} - set(vars(weight))
        vars(weight).update({name: getattr(twin, name) for name in ways})
    try:
        yield
    finally:
        weight.data.copy_(saved)
        for name in ways:
            del vars(weight)[name]
    if weight._version != version:  # changes of `.data`, such as ours, do not count
        raise NoiseError(STEPPED)
