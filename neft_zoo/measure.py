"""What the noise is like: its rms and how it compares with the embeddings it is added to."""

from __future__ import annotations

import torch
from torch import Tensor

from neft_zoo.batch import Batch
from neft_zoo.objectives import Pass
from neft_zoo.registry import Strategy
from neft_zoo.schedules import Schedule, value_at


def measure(strategy: Strategy, done: Pass, batch: Batch) -> dict[str, Tensor]:
    """Return rms, snr_db and the strategy's current numbers (alpha, rho ...), as 0-d tensors.

    rms is taken over the real tokens; snr_db is 20 log10 of embedding rms over noise rms, in decibels, and missing
    while there is no noise.
    """
    numbers = {
        name: torch.tensor(value_at(value, batch.progress))
        for name, value in strategy.arguments.items()
        if isinstance(value, Schedule) or type(value) is float
    }
    if done.delta is None or done.embeds is None:
        return numbers
    noise, signal = _rms(done.delta, batch.real), _rms(done.embeds, batch.real)
    measured = {"rms": noise, **numbers}
    return measured | ({"snr_db": 20 * (signal / noise).log10()} if noise > 0 else {})


def _rms(values: Tensor, real: Tensor) -> Tensor:
    values = values.detach().float() * real[..., None]
    return (values.square().sum() / (real.sum() * values.shape[-1])).sqrt()
