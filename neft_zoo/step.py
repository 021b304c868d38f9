"""Step: one batch as an objective sees it, whoever trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from neft_zoo.batch import IGNORED, Batch
from neft_zoo.divergences import Divergence, divergence
from neft_zoo.errors import NoiseError
from neft_zoo.head import LanguageHead
from neft_zoo.noise import AtLayers, Noise, TokenEdit
from neft_zoo.objectives import Given, Pass
from neft_zoo.tap import Tap

if TYPE_CHECKING:
    from jaxtyping import Float, Int

# Enough for a matrix product at full speed, and little beside what a vocabulary of 128k words takes anyway.
POSITIONS_AT_A_TIME = 128


@dataclass
class Step:
    """The passes of one batch.

    Args:
        tap: the hooks of the model.
        known: the batch; None if the tap reads it from the model's own call.
        compute: the trainer's own loss of one pass, on these token ids where the batch is known.
        token_weight: what turns a sum over graded tokens into the trainer's loss scale; None means their mean.
        backward: backpropagates a part of the loss at once. Without it (a loop of one's own) the part's graph is kept
            and added to the loss that is returned; one that gave a gradient at the noise is then walked twice.
        gradient: `torch.autograd.grad`, or what an engine needs in its place.
    """

    tap: Tap
    known: Batch | None
    compute: Callable[[Tensor | None], Any]
    token_weight: Tensor | float | None = None
    backward: Callable[[Tensor], None] | None = None
    gradient: Callable[..., tuple[Tensor, ...]] = torch.autograd.grad
    passes: list[Pass] = field(default_factory=list)
    _kept: list[Tensor] = field(default_factory=list)
    _dropout: list[Tensor] = field(default_factory=list)

    def run(self, noise: Noise | TokenEdit | None, redraw_dropout: bool = False) -> Pass:
        """Run one forward pass; all passes of a step share their dropout masks unless told otherwise."""
        if not redraw_dropout:
            self._same_dropout()
        ids = None if self.known is None else self.known.input_ids
        if isinstance(noise, TokenEdit):
            ids, noise = noise.edit(self.batch), None
        with self.tap.open(noise, self.known) as done:
            done.loss = self.compute(ids)
        if done.batch is None or (noise is not None and not done.deltas):
            raise NoiseError(
                f"the loss must call the model with input_ids, which noise enters by, got none from "
                f"{type(self.tap.model).__name__}."
            )
        self.passes.append(done)
        return done

    @property
    def batch(self) -> Batch:
        """The batch of the last pass, before any pass the batch that is known."""
        batch = self.passes[-1].batch if self.passes else self.known
        assert batch is not None  # objectives that read calls look at the batch after a pass
        return batch

    def fixed(self, deltas: Mapping[int, Tensor], like: Noise | TokenEdit | None, sign: float = 1.0) -> Noise:
        """Return the noise that adds these deltas, at the sites of `like`."""
        given = Given(deltas, sign)
        return replace(like, noise=given) if isinstance(like, AtLayers) else given

    def gradients(self, value: Tensor, deltas: Mapping[int, Tensor], share: float = 0.0) -> dict[int, Tensor]:
        """Return the gradient of `value` at each delta, and count `share * value` to the loss of the step."""
        leaves = list(deltas.values())
        if share and self.backward is not None:
            for leaf in leaves:
                leaf.grad = None
            self.count(share * value)
            found = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad / share for leaf in leaves]
        else:
            found = list(self.gradient(value, leaves, retain_graph=bool(share)))
            if share:
                self.count(share * value)
        return dict(zip(deltas, found, strict=True))

    def count(self, part: Tensor) -> None:
        """Count a part of the step's loss, and free what its passes hold where it can be backpropagated at once."""
        if self.backward is not None:
            self.backward(part)
        self._kept.append(part if self.backward is None else part.detach())

    def total(self, loss: Tensor) -> Tensor:
        """Return the loss of the step with the parts that were counted before."""
        return sum(self._kept, start=loss)

    def divergence(self, name: Divergence, first: Pass, second: Pass, constant: bool = False) -> Float[Tensor, ""]:
        """Return the divergence of two passes' predictions over the graded tokens, on the trainer's loss scale.

        Few logits are kept by the passes and compared as they are. Otherwise the hidden states are projected through
        the LM head once more, in chunks that are computed again in the backward pass, so that no tensor of all
        positions by all words exists beside those of the passes.

        Args:
            name: which divergence.
            first, second: its two sides, in this order.
            constant: no gradient flows into the first side, nor into the LM head through it.
        """
        (one, two), logits, chunked = self._predictions(self.graded, first, second)
        compare = partial(_divergence, logits, name, constant)
        return self.per_token(chunked(compare, one.detach() if constant else one, two))

    def cross_entropy(self, done: Pass, labels: Int[Tensor, "B L"]) -> Float[Tensor, ""]:
        """Return the loss of a pass against other labels, on the trainer's loss scale."""
        targets = labels[:, 1:]
        graded = targets != IGNORED
        (rows,), logits, chunked = self._predictions(graded, done)
        return self.per_token(chunked(partial(_cross_entropy, logits), rows, targets[graded]))

    @property
    def graded(self) -> Tensor:
        """True where the next token is a target of the loss."""
        if self.batch.graded is None:
            raise NoiseError("an objective that compares predictions needs labels in the batch, got none.")
        return self.batch.graded[:, 1:]

    def per_token(self, total: Tensor) -> Tensor:
        """Divide a sum over graded tokens as the trainer divides its own loss."""
        if self.token_weight is None:
            return total / self.graded.sum().clamp(min=1)
        return total * self.token_weight

    def _predictions(self, graded: Tensor, *passes: Pass) -> tuple[list[Tensor], Callable[[Tensor], Tensor], Any]:
        """Return what the passes have at these positions, what makes logits of that, and how that is gone through."""
        head = LanguageHead(self.tap.model)
        kept, hidden = [done.logits for done in passes], [done.hidden for done in passes]
        if any(each is None for each in hidden):
            raise NoiseError(f"model must call its backbone for a loss, got {type(self.tap.model).__name__}.")
        whole = all(each is not None for each in kept)
        rows = [each[:, :-1][graded] for each in (kept if whole else hidden) if each is not None]
        return (rows, torch.Tensor.float, lambda part, *sides: part(*sides)) if whole else (rows, head, _in_chunks)

    def _same_dropout(self) -> None:
        """Let every pass start from the random state that the first one started from."""
        device = next(self.tap.model.parameters()).device
        if not self._dropout:
            self._dropout.append(torch.get_rng_state())
            if device.type == "cuda":
                self._dropout.append(torch.cuda.get_rng_state(device))
            return
        torch.set_rng_state(self._dropout[0])
        if device.type == "cuda":
            torch.cuda.set_rng_state(self._dropout[1], device)


def _in_chunks(part: Callable[..., Tensor], one: Tensor, other: Tensor) -> Tensor:
    """Return the sum of what `part` makes of stretches of the positions, computed again in the backward pass."""
    chunks = zip(one.split(POSITIONS_AT_A_TIME), other.split(POSITIONS_AT_A_TIME), strict=True)
    parts = [checkpoint(part, *chunk, use_reentrant=False) for chunk in chunks]
    return sum(parts, start=one.new_zeros((), dtype=torch.float32))


def _cross_entropy(logits: Callable[[Tensor], Tensor], rows: Tensor, targets: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits(rows), targets, reduction="sum")


def _divergence(
    logits: Callable[[Tensor], Tensor], name: Divergence, constant: bool, first: Tensor, second: Tensor
) -> Tensor:
    one = logits(first)
    return divergence(name, one.detach() if constant else one, logits(second)).sum()
