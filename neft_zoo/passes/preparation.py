"""Preparing a noise that reads the model or the data once, before training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from neft_zoo.errors import NoiseError
from neft_zoo.noise.additive import Noise, TokenEdit
from neft_zoo.noise.data_dependent import Setup, Unprepared

if TYPE_CHECKING:
    from torch import Tensor, nn


def prepare(
    noise: Noise | TokenEdit | None, model: nn.Module, count_tokens: Callable[[], Tensor] | None
) -> Noise | TokenEdit | None:
    """Return a noise that is ready for a model and its data; most are returned unchanged.

    Raises:
        NoiseError: if the model or the data that the noise needs is missing.
    """
    if not isinstance(noise, Unprepared):
        return noise
    from neft_zoo.passes.anatomy import find_embedding  # late: `neft-zoo list` works without torch
    from neft_zoo.passes.sharding import broadcast_from_rank_0, gathered, is_unsharded

    weight: Any = find_embedding(model).weight
    with gathered([weight]):
        if not is_unsharded(weight):
            raise NoiseError(f"{type(noise).__name__} needs the whole embedding table before it is sharded.")
        return noise.prepare(Setup(broadcast_from_rank_0(weight.detach()), count_tokens))
