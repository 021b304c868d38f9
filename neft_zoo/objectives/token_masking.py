"""Selecting the graded tokens: those that are likely under the starting model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from neft_zoo.errors import NoiseError
from neft_zoo.noise.additive import Noise, TokenEdit
from neft_zoo.noise.schedules import check_number
from neft_zoo.objectives.base import ComparesPredictions, Family

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn

    from neft_zoo.passes.step import Step


@dataclass(frozen=True)
class LikelyTokens(ComparesPredictions):
    """The trainer's own loss on tokens whose perplexity under the starting model is at most `threshold` (STM).

    The other graded tokens are ignored, and the loss is the mean over the remaining ones, with the trainer's weight
    for all of them. Dropout and noise are off while the starting model runs.
    """

    threshold: float = 2.5

    family: ClassVar[Family] = "single pass"
    site: ClassVar[str] = "labels"
    passes = 1

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, 1)

    def check(self, model: nn.Module) -> None:
        from neft_zoo.passes.anatomy import task_of, text_config  # late: `neft-zoo list` works without torch
        from neft_zoo.passes.starting_model import check_starting_model

        super().check(model)
        if task_of(model) != "next token":
            raise NoiseError(f"token masking needs a model that predicts the next token, got {type(model).__name__}.")
        if not hasattr(model, "disable_adapter"):
            raise NoiseError(
                "token masking needs an adapter (peft_config), since the model without it is the starting model, got "
                f"{type(model).__name__}."
            )
        if getattr(text_config(model), "output_router_logits", False):
            raise NoiseError(
                "output_router_logits must be false with token masking, which scales the loss to the tokens that it "
                "keeps, got true: the router's loss would be scaled too."
            )
        check_starting_model(model)

    def __call__(self, step: Step, noise: Noise | TokenEdit | None) -> Float[Tensor, ""]:
        from neft_zoo.noise.batch import IGNORED  # late: `neft-zoo list` works without torch
        from neft_zoo.passes.starting_model import starting_losses

        batch = step.input_batch
        if batch is None or batch.labels is None or batch.graded is None:
            raise NoiseError("token masking needs labels in the batch that the loss is given, got none.")
        graded = batch.graded[:, 1:]
        losses = starting_losses(step.hooks.outputs, lambda: step.compute(batch.input_ids), batch.labels, graded)
        kept = graded & (losses.exp() <= self.threshold)
        if not kept.any():
            return step.run(noise).loss * 0.0
        labels = batch.labels.clone()
        labels[:, 1:] = labels[:, 1:].where(kept, IGNORED)
        loss = step.run(noise, labels=labels).loss
        # A trainer that divides by a token count taken in advance divides by too many tokens.
        return loss if step.token_weight is None else loss * (graded.sum() / kept.sum())
