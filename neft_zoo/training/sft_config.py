"""`NoiseSFTConfig`: TRL's `SFTConfig` with a `noise` field."""

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


@dataclass
class NoiseSFTConfig(SFTConfig):
    """TRL's `SFTConfig` with a `noise` field, which recipes can set and checkpoints record.

    Args:
        noise: a strategy's name, or a mapping with `name` and arguments (as JSON on the command line).

    Raises:
        NoiseError: if the noise is invalid.
    """

    _VALID_DICT_FIELDS = [*json_fields(SFTConfig), "noise"]

    noise: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Embedding noise: a strategy's name, or JSON with name and arguments."},
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
        if self.noise is None:
            return
        if not isinstance(self.noise, str | Mapping):
            raise NoiseError(f"noise must be a name or a mapping with a name, got {shown(self.noise)}.")
        check_alone(self.neftune_noise_alpha, make(self.noise).name)
