"""Checks, before a model is loaded, that a framework and a strategy are compatible."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType

import torch
from packaging.requirements import Requirement

from neft_zoo.errors import NoiseError
from neft_zoo.registry.strategy import Strategy
from neft_zoo.training.stock_noise import check_alone as check_alone

# The versions whose source code the integrations were checked against, by module name.
KNOWN = {"axolotl": "axolotl~=0.19.0", "llamafactory": "llamafactory==0.9.5", "swift": "ms-swift~=4.6.0"}


def check_version(framework: str) -> None:
    """Raise unless a supported version of a framework is installed.

    Args:
        framework: the name of its module here.

    Raises:
        NoiseError: if it is missing or not supported.
    """
    known = Requirement(KNOWN[framework])
    try:
        found = version(known.name)
    except PackageNotFoundError:
        found = None
    if found is None or not known.specifier.contains(found, prereleases=True):
        raise NoiseError(
            f"noise needs {known}, got {found or 'no such package'}: give a trainer of any version to "
            "neft_zoo.enable(trainer, noise)."
        )


def check_recomputation(strategy: Strategy, reentrant: bool, remedy: str) -> None:
    """Raise if a strategy has several passes and activations are recomputed by reentrant checkpointing.

    Args:
        strategy: the strategy.
        reentrant: whether checkpointing is reentrant.
        remedy: the option to set instead, in the framework's syntax.

    Raises:
        NoiseError: if both hold.
    """
    if reentrant and strategy.objective.passes > 1:
        raise NoiseError(
            f"gradient checkpointing must not be reentrant with {strategy.name}, which runs several forward passes a "
            f"step, got reentrant checkpointing, this framework's default: set {remedy}."
        )


def check_processes(module: str, environment: Mapping[str, str]) -> None:
    """Raise if a single process was started on a machine with several devices.

    Args:
        module: the module for Python's `-m`, with its first arguments.
        environment: the environment variables.

    Raises:
        NoiseError: if this is the case.
    """
    count = torch.cuda.device_count()
    if count > 1 and "LOCAL_RANK" not in environment:
        raise NoiseError(
            f"{count} devices need a process each: torchrun --nproc_per_node {count} -m {module} ..., or "
            "CUDA_VISIBLE_DEVICES=0."
        )


def end_in_one_sentence() -> None:
    """Print a `NoiseError` that ends the program as one sentence without a traceback; the exit status is still 1."""
    own = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if isinstance(error, NoiseError):
            print(f"neft-zoo: error: {error}", file=sys.stderr)
        else:
            own(kind, error, traceback)

    sys.excepthook = hook
