"""CallReader: the batch of a pass, read from the model's own calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import torch
from torch import nn

from neft_zoo.errors import NoiseError
from neft_zoo.noise.additive import Noise
from neft_zoo.noise.batch import Batch
from neft_zoo.passes.anatomy import base_model
from neft_zoo.passes.call_checks import check_second_call
from neft_zoo.passes.calls import arguments_of, takes_token_ids
from neft_zoo.passes.layers import find_backbones
from neft_zoo.passes.open_pass import CurrentPass, OpenPass
from neft_zoo.passes.records import Pass
from neft_zoo.passes.torch_internals import in_backward, read

# Builds a batch from a call's arguments.
Read: TypeAlias = Callable[[Mapping[str, Any]], Batch]
# Receives the record of a watched call.
Finished: TypeAlias = Callable[[Pass], None]


class CallReader:
    """Hooks a model's calls to read the open pass's batch from them, and opens a pass for each call while watching.

    Args:
        models: a transformers or PEFT model, followed by those that share its passes.
        current: holds the pass that is open on the model.
        read: builds a batch from a call's arguments.
        repeats: name of the strategy, if it has several passes, each of which must call the model on the same batch;
            None for a strategy of one pass.
        compares: whether its passes are compared, so that each must call the model once.

    Attributes:
        handles: of the hooks.
        watched: while watching, the noise that is added to every call and the callback for its record; else None.
        clean_calls: number of calls in train mode with gradients outside of a pass.
    """

    def __init__(
        self, models: Sequence[nn.Module], current: CurrentPass, read: Read, repeats: str | None, *, compares: bool
    ) -> None:
        self.handles: list[torch.utils.hooks.RemovableHandle] = []
        self.watched: tuple[Noise, Finished] | None = None
        self.clean_calls = 0
        self._model, self._current, self._read = models[0], current, read
        self._repeats, self._compares = repeats, compares
        inner = _modules_inside(self._model)
        self._own, self._innermost = {self._model, *inner}, inner[-1] if inner else self._model
        for each in [*models, *inner]:
            self.handles.append(each.register_forward_pre_hook(self._at_call, with_kwargs=True))
            self.handles.append(each.register_forward_hook(self._after_call, always_call=True))

    def watch(self, noise: Noise, finished: Finished) -> None:
        """Add noise to every model call in train mode with gradients, until `unwatch`.

        Args:
            noise: what is added.
            finished: called with the record of each call.

        Raises:
            NoiseError: if another reader already adds its noise to them.
        """
        hooks = read(self._model, "_forward_pre_hooks", "torch").values()
        others = (getattr(hook, "__self__", None) for hook in hooks)
        if any(isinstance(other, CallReader) and other is not self and other.watched is not None for other in others):
            raise NoiseError(
                f"{type(base_model(self._model)).__name__} must have one noise in a step, got a second one, and two "
                "would add up: call detach() on the NoiseCallback that is done."
            )
        self.watched = noise, finished

    def unwatch(self) -> None:
        """Stop adding noise to calls outside of a pass."""
        self.watched = None

    def _at_call(self, module: nn.Module, args: tuple[object, ...], kwargs: dict[str, Any]) -> None:
        """Read the batch of a call, and open a pass for it while watching."""
        current = self._current
        if current.opened is None and module in self._own and module.training:
            if torch.is_grad_enabled() and not in_backward():
                if self.watched is not None:
                    current.opened = OpenPass(self.watched[0], opener=module)
                elif not torch.compiler.is_compiling():
                    self.clean_calls += 1
        opened = current.opened
        if opened is None or not current.live or opened.caller is not None:
            return
        call = arguments_of(module, args, kwargs)
        if "input_ids" not in call and module in self._own and module is not self._innermost:
            return  # within this call a part of the model may be called with them, as TRL's forward redirection does
        before, calls = opened.record.batch, opened.record.calls
        opened.start_call(module, call, self._read)
        if calls and self._repeats is not None and torch.is_grad_enabled():
            check_second_call(before, opened.record.batch, self._repeats, compares=self._compares)

    def _after_call(self, module: nn.Module, args: tuple[object, ...], output: Any) -> None:
        """Finish reading a call and close the pass it opened; also after an exception, with output None."""
        opened = self._current.opened
        if opened is None:
            return
        if module is opened.caller:
            opened.caller = None
        if module is opened.opener:
            self._current.opened = None
            if output is not None and self.watched is not None:
                self.watched[1](opened.record)


def _modules_inside(model: nn.Module) -> list[nn.Module]:
    """Return the inner modules whose calls have token ids where the model's own call does not, outermost first."""
    found = [base_model(model)]
    with suppress(NoiseError):  # a model without a head has none
        found += find_backbones(model)
    return [module for module in dict.fromkeys(found) if takes_token_ids(module) and module is not model]
