"""OpenPass: a forward pass while it runs; CurrentPass: the one that is open on a model."""

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
    """Adds a noise to the tensors of one forward pass, and records what was added.

    Args:
        noise: what is added, None for nothing.
        batch: what it is drawn on; None if the model's calls are read.
        edited: the token ids that the model is called with, if they are not the batch's.
        opener: the module whose call opened the pass, None if a step did.

    Attributes:
        record: of the pass; its batch is that of the model's last call.
        caller: the module whose call was read, until it ends.
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
        """Find the batch of a call; one that is known already is known by its token ids.

        Args:
            caller: what is called.
            call: its arguments by name.
            read: makes a batch of them.
        """
        self.caller, record, ids = caller, self.record, call.get("input_ids")
        before = record.batch
        if self._given is not None and (ids is None or _are_same(ids, self._ids)):
            record.batch = self._given
        elif record.calls == 0 or before is None or not _are_same(ids, before.input_ids):
            record.batch = read(call)
        if record.batch is not before:  # what was added to another batch is not part of this call
            record.deltas, record.norms, record.embeds = Deltas(), {}, {}
        record.calls, record.ids_given = record.calls + 1, record.ids_given or ids is not None

    def add(self, embeds: Tensor, site: int, factor: float | Tensor = 1.0) -> Tensor | None:
        """Return a tensor with the noise of a site, None where there is none for it.

        Args:
            embeds: the tensor (B, L, D).
            site: `EMBEDDING`, or the number of a layer.
            factor: what the embedding has multiplied its table by.
        """
        record = self.record
        if self.noise is None or record.batch is None:
            return None
        drawn = PREDRAWN.drawn.get(site)
        # Vision-language models look single ids up to find their placeholders: those calls are not the batch.
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
            # An ascent moves one perturbation, however often it is added.
            return add_rounded(embeds, variable, batch)
        noisy, record.deltas[site], norms = add_noise(embeds, noise, batch)
        if norms is not None:
            record.norms[site] = norms
        return noisy


class CurrentPass:
    """Holds the pass that is open on a model, for all hooks of it.

    Args:
        shared: whether the noise is added without gradients as well, as to a reference model.

    Attributes:
        opened: the pass, None between passes.
    """

    def __init__(self, shared: bool) -> None:
        self.opened: OpenPass | None = None
        self._shared = shared

    @property
    def live(self) -> bool:
        """True in an open pass, where it carries gradients or the reference shares the noise."""
        return self.opened is not None and (self._shared or torch.is_grad_enabled())


def add_noise(embeds: Tensor, noise: Noise, batch: Batch) -> tuple[Tensor, Any, Tensor | None]:
    """Return embeddings with noise, the noise or what draws it once more, and its norms if they are known."""
    done = add_drawn(embeds, noise, batch)
    if done is not None:
        return done[0], partial(noise, embeds, batch), done[1]
    delta = noise(embeds, batch)
    return add_rounded(embeds, delta, batch), delta, None


def _are_same(ids: object, known: Tensor | None) -> bool:
    """Return whether token ids are known ones; the values are looked at last, as an accelerator is waited for then."""
    if not isinstance(ids, Tensor) or known is None or ids.shape != known.shape:
        return False
    if torch.compiler.is_compiling():  # a look at them would break the graph
        return True
    return ids is known or ids.data_ptr() == known.data_ptr() or torch.equal(ids, known.to(ids.device))
