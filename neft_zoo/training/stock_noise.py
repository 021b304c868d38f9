"""transformers' own noise, `neftune_noise_alpha`, run as one of our strategies."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from neft_zoo.errors import NoiseError, shown
from neft_zoo.training.ranges import check_ranges

if TYPE_CHECKING:
    from transformers import Trainer


def check_alone(alpha: object, noise: str | None = None) -> None:
    """Raise if transformers' own noise, or a framework's, is set together with a strategy.

    Args:
        alpha: the option's value.
        noise: the strategy's name.

    Raises:
        NoiseError: if it is set.
    """
    if alpha is not None:
        why = "none says to train without noise" if noise == "none" else "two noises would add up"
        raise NoiseError(f"neftune_noise_alpha must be unset when noise is given, got {shown(alpha)}: {why}.")


def stock_noise(alpha: object) -> dict[str, object]:
    """Return the noise that replaces transformers' own, with a warning.

    Raises:
        NoiseError: if alpha is not an accepted number.
    """
    check_ranges({"neftune_noise_alpha": alpha})
    warnings.warn(
        f"neftune_noise_alpha: {shown(alpha)} is run as noise: {{name: neft_uniform, alpha: {shown(alpha)}}}, which "
        "counts the tokens of a document where transformers counts padding as well.",
        stacklevel=4,
    )
    return {"name": "neft_uniform", "alpha": alpha}


def take_stock_noise(trainer: Trainer) -> dict[str, object] | None:
    """Return the noise that replaces a trainer's own and switch that off; None if it has none.

    The trainer's arguments are not changed, since another trainer may share them.
    """
    alpha = trainer.args.neftune_noise_alpha
    if alpha is None:
        return None
    trainer.neftune_noise_alpha = None
    return stock_noise(alpha)
