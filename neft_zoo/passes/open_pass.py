"""OpenPass: a forward pass in progress; CurrentPass: the pass that is open on a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from neft_zoo.noise.additive import AtLayers, Noise
from neft_zoo.noise.batch import Batch
from neft_zoo.passes.adding import add_drawn, add_rounded
from neft_zoo.passes.compiled import PREDRAWN
from neft_zoo.passes.records import Deltas, Pass


class OpenPass:
    """Adds noise to the tensors of one forward pass, and records what was added.

    Args:
        noise: what is added, or None.
        batch: the batch to draw the noise on; None to read it from the model's calls.
        edited: the token ids that the model is called with, if they differ from the batch's.
        opener: the module whose call opened the pass, or None if a step opened it.

    Attributes:
        record: the record of the pass, with the batch of the model's last call.
        caller: the module whose call is being read, or None.
    """

    def __init__(
        self,
        noise: Noise | None,
        batch: Batch | None = None,
        edited: Tensor | None = None,
        opener: nn.Module | None = None,
    ) -> None:
        self.noise, self.opener, self.record = noise, opener, Pass(batch=batch)
        self._given = batch
        self._ids = edited if edited is not None or batch is None else batch.input_ids
        self.caller: nn.Module | None = None

    def start_call(
        self, caller: nn.Module, call: Mapping[str, Any], read: Callable[[Mapping[str, Any]], Batch]
    ) -> None:
        """Find the batch of a call, by comparing its token ids with those already known.

        Args:
            caller: the module that is called.
            call: its arguments by name.
            read: builds a batch from them.
        """
        self.caller, record, ids = caller, self.record, call.get("input_ids")
        before = record.batch
        if self._given is not None and (ids is None or _are_same(ids, self._ids)):
            record.batch = self._given
        elif record.calls == 0 or before is None or not _are_same(ids, before.input_ids):
            record.batch = read(call)
        if record.batch is not before:  # deltas that were added to another batch do not belong to this call
            record.deltas, record.norms, record.embeds = Deltas(), {}, {}
        record.calls, record.ids_given = record.calls + 1, record.ids_given or ids is not None

    def add(self, embeds: Tensor, site: int, factor: float | Tensor = 1.0) -> Tensor | None:
        """Return a tensor with the noise of its site added, or None if there is none for it.

        Args:
            embeds: the tensor (B, L, D).
            site: `EMBEDDING`, or the number of a layer.
            factor: the factor that the embedding module has multiplied its table by.
        """
        record = self.record
        if self.noise is None or record.batch is None:
            return None
        drawn = PREDRAWN.drawn.get(site)
        # Vision-language models look up single ids to find their placeholders; those lookups are not of the batch.
        shape = record.batch.input_ids.shape if drawn is None else drawn.delta.shape[:2]
        if embeds.dim() != 3 or embeds.shape[:2] != shape:
            record.unmatched += [tuple(embeds.shape[:2])] if embeds.dim() == 3 else []
            return None
        if drawn is not None and drawn.delta.shape == embeds.shape:
            record.deltas[site] = drawn.delta
            record.embeds[site] = embeds if drawn.embeds is None else drawn.embeds
            return drawn.add(embeds)
        batch = replace(record.batch.at(site), factor=factor)
        noise = self.noise.noise if isinstance(self.noise, AtLayers) else self.noise
        record.embeds[site] = embeds
        variable = record.deltas.variable(site)
        if variable is not None and variable.shape == embeds.shape:
            # An ascent moves one perturbation, even if it is added several times.
            return add_rounded(embeds, variable, batch)
        noisy, record.deltas[site], norms = add_noise(embeds, noise, batch)
        if norms is not None:
            record.norms[site] = norms
        return noisy


class CurrentPass:
    """Holds the pass that is open on a model, shared by all its hooks.

    Args:
        shared: whether the noise is also added without gradients, as for a reference model.

    Attributes:
        opened: the open pass, or None.
    """

    def __init__(self, shared: bool) -> None:
        self.opened: OpenPass | None = None
        self._shared = shared

    @property
    def live(self) -> bool:
        """True in an open pass with gradients on, or with noise that is shared with a reference model."""
        return self.opened is not None and (self._shared or torch.is_grad_enabled())


def add_noise(embeds: Tensor, noise: Noise, batch: Batch) -> tuple[Tensor, Any, Tensor | None]:
    """Return noisy embeddings, the noise or a function that redraws it, and its norms or None."""
    done = add_drawn(embeds, noise, batch)
    if done is not None:
        return done[0], partial(noise, embeds, batch), done[1]
    delta = noise(embeds, batch)
    return add_rounded(embeds, delta, batch), delta, None


def _are_same(ids: object, known: Tensor | None) -> bool:
    """Return whether token ids equal known ones; values are compared last, since that waits for the accelerator."""
    if not isinstance(ids, Tensor) or known is None or ids.shape != known.shape:
        return False
    if torch.compiler.is_compiling():  # comparing values would break the graph
        return True
    return ids is known or ids.data_ptr() == known.data_ptr() or torch.equal(ids, known.to(ids.device))
