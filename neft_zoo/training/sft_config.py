"""`NoiseSFTConfig`: TRL's `SFTConfig` with the fields `noise` and `token_loss`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trl.trainer.sft_config import SFTConfig

from neft_zoo.errors import NoiseError, shown
from neft_zoo.registry.entries import make
from neft_zoo.training.hf_internals import json_fields
from neft_zoo.training.stock_noise import check_alone
from neft_zoo.training.token_losses import check_token_loss


@dataclass
class NoiseSFTConfig(SFTConfig):
    """TRL's `SFTConfig` with further fields, which recipes can set and checkpoints record.

    Args:
        noise: a strategy's name, or a mapping with `name` and arguments (as JSON on the command line).
        token_loss: `eaft` or `gem` in place of the likelihood, see `token_losses`; None for TRL's `loss_type`.

    Raises:
        NoiseError: if the noise or the loss is invalid.
    """

    _VALID_DICT_FIELDS = [*json_fields(SFTConfig), "noise"]

    noise: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Embedding noise: a strategy's name, or JSON with name and arguments."},
    )

    token_loss: str | None = field(
        default=None,
        metadata={"help": "Loss of a token: eaft (2601.02151) or gem (2408.16673); by default loss_type."},
    )

    def __post_init__(self) -> None:
        if self.noise is False:  # YAML reads `noise: off` as False
            self.noise = None
        if isinstance(self.noise, str) and self.noise.startswith("{"):
            try:
                json.loads(self.noise)
            except (ValueError, RecursionError):
                raise NoiseError(f"noise must be a name or JSON, got {shown(self.noise)}.") from None
        super().__post_init__()
        check_token_loss(self.token_loss, self.loss_type, self.label_smoothing_factor)
        if self.noise is None:
            return
        if not isinstance(self.noise, str | Mapping):
            raise NoiseError(f"noise must be a name or a mapping with a name, got {shown(self.noise)}.")
        check_alone(self.neftune_noise_alpha, make(self.noise).name)
