"""A cache of keys and values from which rows can be dropped, and which is not copied for every new token."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor
    from transformers import PreTrainedModel

ROOM = 64  # positions for which memory is reserved at a time


class RoomyLayer(DynamicLayer):
    """Writes new positions into reserved memory, where its base class copies all earlier ones.

    `python tests/benchmarks/generation.py --cache` compares the two.
    """

    def update(  # type: ignore[override]
        self, key_states: Float[Tensor, "B H N D"], value_states: Float[Tensor, "B H N D"], *args: Any, **kwargs: Any
    ) -> tuple[Float[Tensor, "B H L D"], Float[Tensor, "B H L D"]]:
        """Append positions, and return all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.reserved: list[Tensor | None] = [None, None]
        self.keys = self._appended(0, self.keys, key_states)
        self.values = self._appended(1, self.values, value_states)
        return self.keys, self.values

    def _appended(self, which: int, states: Tensor | None, more: Tensor) -> Tensor:
        length = states.shape[-2] if states is not None and states.numel() else 0
        total, memory = length + more.shape[-2], self.reserved[which]
        # Rows that were dropped or repeated since are another tensor, elsewhere in memory.
        if memory is None or states is None or states.data_ptr() != memory.data_ptr() or total > memory.shape[-2]:
            memory = more.new_empty(*more.shape[:-2], total + ROOM, more.shape[-1])
            if states is not None and length:
                memory[..., :length, :] = states
            self.reserved[which] = memory
        memory[..., length:total, :] = more
        return memory[..., :total, :]


def row_cache(model: PreTrainedModel) -> DynamicCache | None:
    """Return an empty cache from which rows can be dropped, or None for models with another kind of cache.

    Recurrent models have states, beside keys or instead of them. Prompt tuning needs the cache to be empty at first.
    """
    adapter = getattr(model, "active_peft_config", None)
    if model.generation_config.cache_implementation or getattr(adapter, "is_prompt_learning", False):  # type: ignore
        return None
    base: Any = model if adapter is None else model.get_base_model()  # type: ignore[operator]
    if "past_key_values" not in signature(base.forward).parameters:
        return None
    cache = DynamicCache(config=model.config)
    if not all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers):
        return None
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
