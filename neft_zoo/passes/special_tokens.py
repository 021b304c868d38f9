"""Token ids that are special to a tokenizer or a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from neft_zoo.errors import NoiseError

MEDIA = re.compile(r"(image|video|audio)_token_(id|index)")


def special_token_ids(tokenizer: Any, config: Any = None) -> dict[str, Any]:
    """Return the ids that `Batch.from_inputs` takes: special tokens, mask, padding, and media placeholders.

    Args:
        tokenizer: a tokenizer or processor; None for no special tokens.
        config: the config of a transformers model, for its placeholders; None for no placeholders.
    """
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # a processor holds one
    mask_id, pad_id = (getattr(tokenizer, name, None) for name in ("mask_token_id", "pad_token_id"))
    # A chat template's markers may be special tokens without a named role, such as Llama 3's headers.
    added = getattr(tokenizer, "added_tokens_decoder", {})
    markers = (number for number, token in added.items() if token.special)
    return {
        "special_ids": sorted({*getattr(tokenizer, "all_special_ids", ()), *markers}),
        "fill_id": pad_id if mask_id is None else mask_id,
        "pad_id": pad_id,
        "media_ids": sorted(set(_placeholders(config))),
    }


def check_placeholders(model: Any, media_ids: Sequence[int]) -> None:
    """Raise unless a transformers model replaces placeholder tokens by image, video or sound features.

    Raises:
        NoiseError: if it does not. Mllama has such tokens, but reads images by cross-attention.
    """
    if not media_ids or hasattr(model.config.get_text_config(), "cross_attention_layers"):
        raise NoiseError(
            "noise on placeholders needs a model that puts image, video or sound features in their place, got "
            f"{type(model).__name__}."
        )


def _placeholders(config: Any) -> Iterator[int]:
    """Yield the placeholder ids for images, video and sound in a config and its nested configs."""
    for name, value in vars(config).items() if hasattr(config, "model_type") else ():
        if MEDIA.fullmatch(name) and isinstance(value, int):
            yield value
        yield from _placeholders(value)
