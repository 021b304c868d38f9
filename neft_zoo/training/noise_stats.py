"""What the noise is like: its rms and how it compares with the embeddings it is added to."""

from __future__ import annotations

import torch
from torch import Tensor

from neft_zoo.noise.schedules import Schedule, value_at
from neft_zoo.passes.step import Step
from neft_zoo.registry.strategy import Strategy


def measure(strategy: Strategy, step: Step) -> dict[str, Tensor]:
    """Return rms, snr_db and the strategy's current numbers (alpha, rho ...), as 0-d tensors.

    Measured on the last noisy pass, at its first site, over the real tokens; snr_db is 20 log10 of embedding rms over
    noise rms, in decibels, and missing while there is no noise.
    """
    batch = step.batch
    numbers = {
        name: torch.tensor(value_at(value, batch.progress))
        for name, value in strategy.arguments.items()
        if isinstance(value, Schedule) or type(value) is float
    }
    noisy = next((done for done in reversed(step.passes) if done.deltas), None)
    if noisy is None:
        return numbers
    site = min(noisy.deltas)
    norms = noisy.norms[site] if site in noisy.norms else _norms(noisy.deltas[site])
    noise, signal = (_rms(each, batch.real, noisy.embeds[site]) for each in (norms, _norms(noisy.embeds[site])))
    measured = {"rms": noise, **numbers}
    return measured | ({"snr_db": 20 * (signal / noise).log10()} if noise > 0 else {})


def _norms(values: Tensor) -> Tensor:
    dtype = torch.promote_types(values.dtype, torch.float32)
    return torch.linalg.vector_norm(values.detach(), dim=-1, dtype=dtype)


def _rms(norms: Tensor, real: Tensor, embeds: Tensor) -> Tensor:
    return ((norms * real).square().sum() / (real.sum() * embeds.shape[-1])).sqrt()
