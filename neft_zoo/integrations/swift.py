"""ms-swift: `swift sft --external_plugins noise.py`, a file that calls `register("symnoise")`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import transformers

from neft_zoo.errors import NoiseError
from neft_zoo.integrations.checks import check_alone, check_recomputation, check_version, end_in_one_sentence
from neft_zoo.registry.entries import make
from neft_zoo.registry.strategy import Strategy
from neft_zoo.training.enable import enable


def register(noise: str | Mapping[str, object] | Strategy) -> None:
    """Train under a strategy in every trainer that ms-swift creates from now on.

    Args:
        noise: a strategy's name, a mapping with `name` and arguments, or a `Strategy`.

    Raises:
        NoiseError: if the noise is invalid, or no supported version of ms-swift is installed.
    """
    end_in_one_sentence()
    strategy = make(noise)
    check_version("swift")
    if "swift.megatron" in sys.modules:
        raise NoiseError("noise needs swift sft or swift rlhf, got megatron, whose trainer is not transformers'.")
    from swift.trainers import TrainerFactory  # pyright: ignore[reportMissingImports]

    # The only place where all commands look up their trainer class.
    # https://github.com/modelscope/ms-swift/blob/v4.6.0/swift/pipelines/train/sft.py
    own: Callable[..., type[transformers.Trainer]] = TrainerFactory.get_trainer_cls

    def noisy(options: Any) -> Callable[..., transformers.Trainer]:
        check(options.training_args, strategy)
        cls = own(options)
        return lambda *args, **kwargs: enable(cls(*args, **kwargs), strategy)

    TrainerFactory.get_trainer_cls = staticmethod(noisy)


def check(options: Any, strategy: Strategy) -> None:
    """Raise for options that are incompatible with the noise.

    Args:
        options: ms-swift's training arguments.
        strategy: the strategy.

    Raises:
        NoiseError: if another noise is set, or the strategy cannot run under the options.
    """
    check_alone(options.neftune_noise_alpha)
    # https://github.com/modelscope/ms-swift/blob/v4.6.0/swift/trainers/mixin.py
    reentrant = (options.gradient_checkpointing_kwargs or {}).get("use_reentrant", True)
    remedy = """--gradient_checkpointing_kwargs '{"use_reentrant": false}', or --gradient_checkpointing false"""
    check_recomputation(strategy, bool(options.gradient_checkpointing and reentrant), remedy)
