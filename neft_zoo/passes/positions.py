"""Models with a table of positions, which cannot read a longer sequence (GPT-2, OPT)."""

from __future__ import annotations

from torch import nn

from neft_zoo.errors import NoiseError
from neft_zoo.passes.anatomy import base_model, find_embedding, text_config


def check_positions(model: nn.Module, tokens: int, what: str, remedy: str) -> None:
    """Raise if a model has a table of positions, and it is too small.

    Args:
        model: a transformers or PEFT model.
        tokens: length of the longest sequence.
        what: what has this length.
        remedy: the option that makes it shorter.

    Raises:
        NoiseError: with both lengths.
    """
    most = longest_sequence(model)
    if most is not None and tokens > most:
        name = type(base_model(model)).__name__
        raise NoiseError(f"{what} must have at most {most} tokens, the positions of {name}, got {tokens}: {remedy}.")


def longest_sequence(model: nn.Module) -> int | None:
    """Return the number of rows of a model's table of positions, or None if it computes positions of any number."""
    most = getattr(text_config(model), "max_position_embeddings", None)
    words = set(find_embedding(model).modules())
    tables = (each for each in model.modules() if isinstance(each, nn.Embedding) and each not in words)
    # Some tables begin with rows for padding (OPT).
    return most if any(each.num_embeddings - getattr(each, "offset", 0) == most for each in tables) else None
