"""Private names of torch and transformers that are needed to inspect a model's modules.

Those of trainers are in `training.hf_internals`. Each has its reason in a comment, and is read through `read`, which
raises if a new version has dropped it.
"""

from __future__ import annotations

import platform
from collections import OrderedDict
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch.nn.parallel import DataParallel, DistributedDataParallel

from neft_zoo.errors import NoiseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle


def read(owner: object, name: str, library: str) -> Any:
    """Return an attribute that a library does not guarantee to keep.

    Args:
        owner: the object or class that has it.
        name: the attribute.
        library: the distribution that defines it, or `python`, for the message.

    Raises:
        NoiseError: if the attribute is gone; the message names the library's version.
    """
    try:
        return getattr(owner, name)
    except AttributeError:
        kind = owner if isinstance(owner, type) else type(owner)
        raise NoiseError(
            f"{library} must have {kind.__name__}.{name}, which neft-zoo reads, got version {_version(library)} "
            "without it: install one that constraints.txt names."
        ) from None


def _version(library: str) -> str:
    return platform.python_version() if library == "python" else version(library)


# torch 2.13: there is no public way to ask. A loss that caches gradients calls its model again during the backward
# pass, to differentiate a pass that was run without gradients and hence without noise.
# https://github.com/pytorch/pytorch/blob/v2.13.0/torch/autograd/graph.py
def in_backward() -> bool:
    """Return whether the current thread is inside of a backward pass."""
    return read(torch._C, "_current_graph_task_id", "torch")() != -1


# torch 2.13: `torch.autograd.grad` calls the hooks of the tensors that it differentiates for, and there is no public
# way to leave them out.
# https://github.com/pytorch/pytorch/blob/v2.13.0/torch/_tensor.py
@contextmanager
def without_hooks(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Take the gradient hooks of tensors off inside the context."""
    hooked = [(each, hooks) for each in tensors if (hooks := read(each, "_backward_hooks", "torch"))]
    for tensor, _ in hooked:
        tensor._backward_hooks = None
    try:
        yield
    finally:
        for tensor, hooks in hooked:
            tensor._backward_hooks = hooks


# torch 2.13: there is no public way to ask whether a module has hooks. A head that has hooks must be called as a
# module, since a plain product with its weight would bypass them.
# https://github.com/pytorch/pytorch/blob/v2.13.0/torch/nn/modules/module.py
def has_hooks(module: nn.Module) -> bool:
    """Return whether a forward hook or pre-hook is set on a module."""
    return bool(read(module, "_forward_hooks", "torch") or read(module, "_forward_pre_hooks", "torch"))


# torch 2.13: copying a module copies its hooks, and there is no public way to exclude one. deepcopy and pickle look up
# `__reduce_ex__` on the object before its class, so the dictionary of hooks can override it. It must remain the same
# object of the same type, since the handles of all its hooks refer to it and torch.compile inspects it.
# https://github.com/pytorch/pytorch/blob/v2.13.0/torch/utils/hooks.py
class UncopiedHook:
    """Handle of a hook that is left out of copies and pickles of its module.

    Args:
        handle: as returned by torch's functions that register hooks.
    """

    def __init__(self, handle: RemovableHandle) -> None:
        self._handle = handle
        references = [read(handle, "hooks_dict_ref", "torch"), *read(handle, "extra_dict_ref", "torch")]
        hooks = [reference() for reference in references]
        self._reductions = [vars(each).setdefault("__reduce_ex__", _WithoutSome(each)) for each in hooks]
        for reduction in self._reductions:
            reduction.left_out.add(handle.id)

    def remove(self) -> None:
        """Remove the hook."""
        self._handle.remove()
        for reduction in self._reductions:
            reduction.left_out.discard(self._handle.id)
            if not reduction.left_out:
                vars(reduction.hooks).pop("__reduce_ex__", None)


class _WithoutSome:
    """Reduces a dictionary of hooks, for copies and pickles, to the hooks that are not excluded."""

    def __init__(self, hooks: OrderedDict[int, object]) -> None:
        self.hooks, self.left_out = hooks, set[int]()

    def __call__(self, protocol: int) -> tuple[object, ...]:
        return OrderedDict, (), None, None, iter([each for each in self.hooks.items() if each[0] not in self.left_out])


# transformers 5.6 to 5.23: enabling checkpointing sets a partial of torch's `checkpoint` on each module it covers,
# and nothing public says whether it is the reentrant one. A model with remote code may do it in its own way.
# https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/modeling_utils.py
def checkpoint_functions(model: nn.Module) -> list[Callable[..., object]]:
    """Return the functions that checkpoint the modules of a model, empty if checkpointing is off."""
    enabled = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]
    theirs = [m for m in enabled if any(cls.__module__.startswith("transformers.") for cls in type(m).__mro__)]
    return [read(module, "_gradient_checkpointing_func", "transformers") for module in theirs]


# torch 2.13: the attribute of the `torch.compile` wrapper is undocumented, and accelerate's public way to unwrap a
# model imports DeepSpeed whenever it is installed, which takes seconds.
# https://github.com/pytorch/pytorch/blob/v2.13.0/torch/_dynamo/eval_frame.py
def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside the wrappers of torch.compile, DDP, FSDP and DeepSpeed."""
    from accelerate.utils import is_compiled_module

    while True:
        if is_compiled_module(model):
            model = read(model, "_orig_mod", "torch")
        elif averages_gradients(model):
            model = model.module
        else:
            return model


def averages_gradients(model: nn.Module) -> TypeGuard[DistributedDataParallel]:
    """Return whether a module is a wrapper that averages gradients over several processes."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    engine = any(cls.__name__ == "DeepSpeedEngine" for cls in type(model).__mro__)  # it need not be installed
    return engine or isinstance(model, DistributedDataParallel | DataParallel | FullyShardedDataParallel)


# torch 2.13: a graph that was compiled before a hook was set ignores it, since hooks of modules are not guarded
# (torch._dynamo.config.skip_nnmodule_hook_guards), and nothing public says whether a module or `forward` is compiled.
# https://github.com/pytorch/pytorch/blob/v2.13.0/torch/_dynamo/config.py
def forget_graphs(model: nn.Module) -> None:
    """Make a model that the user has compiled compile again: its graphs ignore hooks that are set later.

    Args:
        model: may be wrapped; nothing is done if no part of it is compiled.
    """
    if any(map(_is_compiled, model.modules())):
        torch.compiler.reset()


def _is_compiled(module: nn.Module) -> bool:
    from accelerate.utils import is_compiled_module

    in_place = read(module, "_compiled_call_impl", "torch") is not None
    return in_place or is_compiled_module(module) or hasattr(module.forward, "_torchdynamo_orig_callable")
