"""The way from a model's last hidden states to its logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from neft_zoo.errors import NoiseError
from neft_zoo.passes.anatomy import base_model, find_head
from neft_zoo.passes.sharding import gathers_late, is_local
from neft_zoo.passes.torch_internals import has_hooks

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

# What families call the bound of their logits.
SOFT_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")


class LanguageHead:
    """The projection from hidden states to logits, with the factor and the soft cap of the model's config."""

    def __init__(self, model: nn.Module) -> None:
        base = base_model(model)
        self.project: Any = find_head(model)
        if self.project is None:
            raise NoiseError(f"model must have an LM head, got {type(base).__name__}, which has none.")
        config = base.config.get_text_config()
        self.split = gathers_late(model)
        self.scale = _logit_scale(config)
        caps = (getattr(config, name, None) for name in SOFT_CAPS)
        self.cap = next((cap for cap in caps if cap is not None), None)

    def __call__(self, hidden: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape V"]:
        return self.finish(self.project(hidden))

    def finish(self, projected: Float[Tensor, "*shape V"]) -> Float[Tensor, "*shape V"]:
        """Return the logits, given the projection."""
        logits = projected.float() * self.scale
        return logits if self.cap is None else self.cap * (logits / self.cap).tanh()

    def is_one_product(self) -> bool:
        """Return whether the projection is a product with a weight that this process holds, and nobody looks on."""
        head = self.project
        watched = has_hooks(head) or "forward" in vars(head)
        return type(head) is nn.Linear and not watched and not self.split and is_local(head.weight)


def _logit_scale(config: Any) -> float:
    """Return what a model's forward multiplies its logits by; the config key differs between families."""
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        if getattr(config, name, None) is not None:
            return float(getattr(config, name))
    scaling = getattr(config, "logits_scaling", None)
    if scaling is None:
        return 1.0
    return float(scaling) if config.model_type == "hyperclovax" else 1 / float(scaling)


def require_dropout(model: nn.Module) -> None:
    """Raise unless something in the model is random.

    Raises:
        NoiseError: if nothing is; the message says what to set.
    """
    modules = [m for m in model.modules() if isinstance(m, nn.Dropout) and m.p > 0]
    config = base_model(model).config.get_text_config()
    # Some families drop out by a function and not by a module.
    if not modules and not any(getattr(config, name, 0.0) for name in ("attention_dropout", "dropout")):
        raise NoiseError(
            "two passes of a model without dropout are the same: set lora_dropout in the LoRA config or "
            "attention_dropout in the model's config above 0, got 0 for all."
        )
