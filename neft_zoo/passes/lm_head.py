"""LanguageHead: the map from a model's last hidden states to its logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from neft_zoo.errors import NoiseError
from neft_zoo.passes.anatomy import base_model, find_head, text_config
from neft_zoo.passes.sharding import gathers_late, is_local
from neft_zoo.passes.torch_internals import has_hooks

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

# Config keys for the bound of the logits, which differ between models, as do those for the factor. `makes` detects a
# model with an unknown key.
SOFT_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
# Largest accepted difference from the model's logits, relative to the largest logit: the error of half precision.
ROUNDING = 0.03


class LanguageHead:
    """The projection from hidden states to logits, including the config's factor and soft cap.

    Args:
        model: a transformers or PEFT model.

    Raises:
        NoiseError: if the model has no LM head.
    """

    def __init__(self, model: nn.Module) -> None:
        base = base_model(model)
        self.project: Any = find_head(model)
        if self.project is None:
            raise NoiseError(f"model must have an LM head, got {type(base).__name__}, which has none.")
        config = text_config(model)
        self.split = gathers_late(model)
        self.scale = _logit_scale(config)
        caps = (getattr(config, name, None) for name in SOFT_CAPS)
        self.cap = next((cap for cap in caps if cap is not None), None)

    def __call__(self, hidden: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape V"]:
        return self.finish(self.project(self.cast(hidden)))

    def cast(self, hidden: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape D"]:
        """Return hidden states in the type of the projection; a model's autocast may leave them in 16 bits."""
        weight = getattr(self.project, "weight", None)
        if not isinstance(weight, torch.Tensor) or not weight.is_floating_point() or weight.element_size() < 2:
            return hidden  # quantized
        return hidden.to(weight.dtype)

    def finish(self, projected: Float[Tensor, "*shape V"]) -> Float[Tensor, "*shape V"]:
        """Return the logits for a projection, by applying factor and soft cap."""
        logits = projected.float() * self.scale
        return logits if self.cap is None else self.cap * (logits / self.cap).tanh()

    @torch.no_grad()
    def makes(self, logits: Float[Tensor, "B V"], hidden: Float[Tensor, "B D"]) -> bool:
        """Return whether this head maps these hidden states to these logits of the model.

        In some models it does not: BERT and ModernBERT transform the states first. A head that is sharded, adapted or
        quantized is not checked and assumed to do so, since it can only be run as a whole, dropout included.
        """
        if not self.is_one_product():
            return True
        weight = self.project.weight
        if hidden.shape[-1] != weight.shape[1] or logits.shape[-1] != len(weight):
            return False
        found, logits = self(hidden), logits.float()
        return bool((found - logits).abs().max() <= ROUNDING * logits.abs().max())

    def has_dropout(self) -> bool:
        """Return whether the projection has active dropout, as an adapter on it may."""
        kinds = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
        return any(isinstance(part, kinds) and part.training and part.p > 0 for part in self.project.modules())

    def is_one_product(self) -> bool:
        """Return whether the projection is one product with an unsharded weight, without hooks."""
        head = self.project
        watched = has_hooks(head) or "forward" in vars(head)
        return type(head) is nn.Linear and not watched and not self.split and is_local(head.weight)


def check_numbers(model: nn.Module, logits: Float[Tensor, "*shape V"]) -> None:
    """Raise `NoiseError` if a logit is nan, as all are after training has diverged."""
    if logits.isnan().any():
        name = type(base_model(model)).__name__
        raise NoiseError(f"model must return logits that are numbers, got nan from {name}: it may have diverged.")


def _logit_scale(config: Any) -> float:
    """Return the factor that a model's forward multiplies its logits by."""
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        if getattr(config, name, None) is not None:
            return float(getattr(config, name))
    scaling = getattr(config, "logits_scaling", None)
    if scaling is None:
        return 1.0
    return float(scaling) if config.model_type == "hyperclovax" else 1 / float(scaling)
