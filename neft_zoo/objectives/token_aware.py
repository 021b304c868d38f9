"""Free ascent on two perturbations at once, one of the document and one of its tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from neft_zoo.errors import NoiseError
from neft_zoo.noise.additive import AtLayers, Noise, TokenEdit
from neft_zoo.noise.schedules import Scalar, check_count, check_scalar, value_at
from neft_zoo.objectives.ascent import Ascends, leaf
from neft_zoo.objectives.norm_ball import SMALLEST, Ball

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from neft_zoo.noise.batch import Batch
    from neft_zoo.passes.step import Step


@dataclass(frozen=True)
class Sum:
    """The sum of two noises."""

    one: Noise
    other: Noise

    def __call__(self, embeds: Float[Tensor, "B L D"], batch: Batch) -> Float[Tensor, "B L D"]:
        return self.one(embeds, batch) + self.other(embeds, batch)


@dataclass(frozen=True)
class TokenAwareAscent(Ascends):
    """Ascent on a perturbation of the document and one of its tokens, in which every pass trains (token-aware VAT).

    The first moves along the document's normalized gradient, the second along each token's. Each token's perturbation
    is then multiplied by its norm over the largest norm in the document. The strategy's noise is the start of the
    second.

    Args:
        ball: the set of allowed sums of both.
        start: the start of the document's perturbation.
        steps: passes K (>= 1).
        size: length of a step, of a document and of a token (>= 0).
    """

    ball: Ball
    start: Noise
    steps: int = 2
    size: Scalar = 0.1

    def __post_init__(self) -> None:
        check_count("steps", self.steps, 1)
        check_scalar("size", self.size)

    @property
    def passes(self) -> int:
        return self.steps

    def takes(self, noise: Noise | TokenEdit | None) -> None:
        super().takes(noise)
        if noise is None or isinstance(noise, AtLayers):
            raise NoiseError(f"a token-aware ascent must start from a noise on embeddings, got {noise!r}.")

    def __call__(self, step: Step, noise: Noise | TokenEdit | None) -> Float[Tensor, ""]:
        assert isinstance(noise, Noise)  # checked by `takes`
        current, tokens = leaf(Sum(noise, self.start), self.ball), None
        for _ in range(self.steps - 1):
            done = step.run(current)
            ((site, gradient),) = step.gradients(done.loss, done.deltas, share=1 / self.steps).items()
            delta, embeds = done.deltas[site].detach(), done.embeds[site].detach()
            if tokens is None:
                tokens = noise(embeds, step.batch)
                tokens = tokens * self.ball.shrinkage(tokens + self.start(embeds, step.batch), embeds, step.batch)
            document, tokens = self._climb(delta - tokens, tokens, gradient, step.batch)
            factor = self.ball.shrinkage(document + tokens, embeds, step.batch)
            tokens = tokens * factor
            current = step.fixed({site: (document * factor + tokens).requires_grad_()}, noise)
        return step.total(step.run(current).loss / self.steps)

    def _climb(self, document: Tensor, tokens: Tensor, gradient: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return both perturbations after one more ascent step, the tokens' weighted by their share."""
        size = value_at(self.size, batch.progress)
        document = document + size * self.ball.up(gradient, batch)
        tokens = tokens + size * replace(self.ball, norm="token").up(gradient, batch)
        norms = tokens.square().sum(-1).sqrt()
        share = norms / batch.document_max(norms).clamp(min=SMALLEST)
        return document, tokens * share[..., None]
