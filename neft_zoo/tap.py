"""EmbeddingTap: the one hook between a noise and a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neft_zoo.batch import Batch
from neft_zoo.errors import NoiseError
from neft_zoo.noise import Noise
from neft_zoo.objectives import Pass
from neft_zoo.randomness import bits


def find_embedding(model: nn.Module) -> nn.Module:
    """Return the token embedding of a model, under PEFT the module that stands in its place.

    Raises:
        NoiseError: if the model names no token embedding.
    """
    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # PEFT is optional here
    try:
        embedding = base.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        embedding = None
    if not isinstance(embedding, nn.Module):
        raise NoiseError(
            f"model must have a token embedding (get_input_embeddings), got {type(base).__name__}, which has none."
        )
    return embedding


class EmbeddingTap:
    """Adds noise to the embedding output while a pass is open and gradients are on; never otherwise.

    So evaluation, generation, reference passes and everything after an exception see the clean model, in train mode
    too. The hook is set after PEFT has wrapped the model: before, some adapters would bypass or copy it.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.embedding = find_embedding(model)
        self._handle = self.embedding.register_forward_hook(self._add)
        self._noise: Noise | None = None
        self._batch: Batch | None = None
        self._pass: Pass | None = None

    def detach(self) -> None:
        """Leave the model as it was found."""
        self._handle.remove()

    @contextmanager
    def open(self, noise: Noise | None, batch: Batch) -> Iterator[Pass]:
        """Yield the record of a pass during which `noise` is added."""
        self._noise, self._batch, self._pass = noise, batch, Pass()
        try:
            yield self._pass
        finally:
            self._noise = self._batch = self._pass = None

    def _add(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if self._noise is None or self._batch is None or self._pass is None or not torch.is_grad_enabled():
            return None
        # Vision-language models look single ids up to find their placeholders: those calls are not the batch.
        if output.dim() != 3 or output.shape[:2] != self._batch.input_ids.shape:
            return None
        delta = self._noise(output, self._batch)
        self._pass.delta, self._pass.embeds = delta, output
        return add_rounded(output, delta, self._batch)


def add_rounded(
    embeds: Float[Tensor, "B L D"], delta: Float[Tensor, "B L D"], batch: Batch
) -> Float[Tensor, "B L D"]:
    """Return embeds + delta in the dtype of `embeds`; in bf16 round up or down at random, in proportion.

    A bf16 number near 1 has steps of 0.008: rounding to nearest would drop most of a small noise, and all of it where
    it is below half a step. Rounded stochastically the noise keeps its mean.
    """
    if embeds.dtype != torch.bfloat16:
        return embeds + delta.to(embeds.dtype)
    exact = embeds.float() + delta
    dither = bits(batch.stream("rounding"), embeds.shape[-1]) & 0xFFFF
    with torch.no_grad():
        # bf16 is the upper half of float32, so adding 16 random bits and cutting the lower half rounds in proportion.
        rounded = ((exact.view(torch.int32) + dither.int()) & -0x10000).view(torch.float32)
    return (exact + (rounded - exact).detach()).to(torch.bfloat16)
