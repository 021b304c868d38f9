"""Axolotl: `plugins: [neft_zoo.integrations.axolotl.NoisePlugin]` and `noise: symnoise` in its YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from axolotl.integrations.base import BasePlugin  # pyright: ignore[reportMissingImports]
from pydantic import BaseModel  # pyright: ignore[reportMissingImports]

from neft_zoo.errors import NoiseError
from neft_zoo.integrations.checks import check_alone, check_version, end_in_one_sentence
from neft_zoo.registry.entries import make
from neft_zoo.training.enable import enable

if TYPE_CHECKING:
    from transformers import Trainer


class NoiseArgs(BaseModel):
    """The options that the plugin adds to Axolotl.

    Attributes:
        noise: a strategy's name, or a mapping with `name` and arguments.
    """

    noise: str | dict[str, Any] | None = None


class NoisePlugin(BasePlugin):
    """Trains any Axolotl trainer under the strategy given by `noise`."""

    def register(self, cfg: dict[str, Any]) -> None:
        """Check the noise before anything is loaded.

        Raises:
            NoiseError: if it is missing or invalid, another noise is set, or the version of Axolotl is not supported.
        """
        end_in_one_sentence()
        check_version("axolotl")
        if cfg.get("noise") is None:
            raise NoiseError("noise must be given beside NoisePlugin, got none; 'none' trains without.")
        for option in ("neftune_noise_alpha", "noisy_embedding_alpha"):  # the second is Axolotl's old name
            check_alone(cfg.get(option))
        make(plain(cfg["noise"]))

    def get_input_args(self) -> str:
        """Return the path of the options' class."""
        return f"{NoiseArgs.__module__}.{NoiseArgs.__qualname__}"

    def post_trainer_create(self, cfg: Any, trainer: Trainer) -> None:
        """Add the noise to the trainer.

        Raises:
            NoiseError: if the noise is incompatible with the trainer.
        """
        enable(trainer, plain(cfg.noise))


def plain(noise: Any) -> Any:
    """Return a noise as plain values; Axolotl's mapping has None for every missing name."""
    return {name: plain(value) for name, value in noise.items()} if isinstance(noise, dict) else noise
