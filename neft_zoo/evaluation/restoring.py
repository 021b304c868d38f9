"""Giving models back as they were found, although TRL's trainer changes what it measures."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from neft_zoo.passes.anatomy import base_model, text_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@contextmanager
def left_as_found(tokenizer: PreTrainedTokenizerBase, *models: PreTrainedModel) -> Iterator[None]:
    """Restore, after the context, the modes, settings and methods of models, and the padding token of their tokenizer.

    TRL's trainer gives a model a `forward` of its own, which a copy of the model would call on the original.
    """
    modes = [(module, module.training) for model in models for module in model.modules()]
    bases: list[Any] = [base_model(model) for model in models]
    configs = [each for base in bases for each in (base.config, text_config(base), base.generation_config)]
    settings = [(config, copy.copy(vars(config))) for config in configs if config is not None]
    forwards = [(base, vars(base).get("forward")) for base in bases]
    padding = tokenizer.pad_token
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for config, values in settings:
            vars(config).clear()
            vars(config).update(values)
        for base, forward in forwards:
            vars(base).pop("forward", None)
            vars(base).update({} if forward is None else {"forward": forward})
        tokenizer.pad_token = padding
