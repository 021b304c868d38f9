"""LLaMA-Factory: `neft-zoo run llamafactory train.yaml --noise symnoise`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import transformers

from neft_zoo.errors import NoiseError, shown
from neft_zoo.integrations.checks import check_alone, check_processes, check_recomputation, check_version
from neft_zoo.registry.entries import make
from neft_zoo.registry.strategy import Strategy
from neft_zoo.training.enable import enable

Change = Callable[[transformers.Trainer], transformers.Trainer]
# A stage's workflow creates its trainer through this global of its module, and gives no other access to it.
# https://github.com/hiyouga/LLaMA-Factory/blob/v0.9.5/src/llamafactory/train/sft/workflow.py
TRAINERS = {"pt": "CustomTrainer", "sft": "CustomSeq2SeqTrainer", "rm": "PairwiseTrainer"}
TRAINERS |= {"dpo": "CustomDPOTrainer", "kto": "CustomKTOTrainer"}
# Options, and environment variables, under which another program trains.
# https://github.com/hiyouga/LLaMA-Factory/blob/v0.9.5/src/llamafactory/train/tuner.py
OTHER_TRAINERS = ("use_ray", "use_mca", "use_hyper_parallel")


def train(options: dict[str, Any], noise: str | Mapping[str, object] | Strategy) -> None:
    """Run LLaMA-Factory's training under a strategy.

    Args:
        options: LLaMA-Factory's, without `noise`.
        noise: a strategy's name, a mapping with `name` and arguments, or a `Strategy`.

    Raises:
        NoiseError: before training, if the noise is invalid or incompatible with the options.
    """
    strategy = make(noise)
    check_version("llamafactory")
    check(options, strategy)
    from llamafactory.train.tuner import run_exp  # pyright: ignore[reportMissingImports]

    with changed(options.get("stage", "sft"), lambda trainer: enable(trainer, strategy)):
        run_exp(options)


def check(options: Mapping[str, Any], strategy: Strategy, environment: Mapping[str, str] = os.environ) -> None:
    """Raise for options that are incompatible with the noise.

    Raises:
        NoiseError: if another noise is set, another program trains, or the strategy cannot run under the options.
    """
    check_alone(options.get("neftune_noise_alpha"))
    stage = options.get("stage", "sft")
    if stage not in TRAINERS:
        raise NoiseError(f"stage must be one of {', '.join(TRAINERS)} with noise, got {shown(stage)}.")
    for name in OTHER_TRAINERS:
        value = options.get(name) or environment.get(name.upper(), "0").lower() in ("true", "y", "1")
        if value:
            raise NoiseError(f"{name} must be off with noise, which goes into transformers' trainer, got {value!r}.")
    recomputed = not options.get("disable_gradient_checkpointing") and options.get("use_reentrant_gc", True)
    check_recomputation(strategy, bool(recomputed), "use_reentrant_gc: false, or disable_gradient_checkpointing: true")
    check_processes("neft_zoo run llamafactory", environment)


@contextmanager
def changed(stage: str, change: Change) -> Iterator[None]:
    """Change a stage's trainer as soon as its workflow creates it, inside this context."""
    workflow, name = import_module(f"llamafactory.train.{stage}.workflow"), TRAINERS[stage]
    own = getattr(workflow, name)
    setattr(workflow, name, lambda *args, **kwargs: change(own(*args, **kwargs)))
    try:
        yield
    finally:
        setattr(workflow, name, own)
