"""Properties of a strategy's noise, checked batch by batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace

import torch
from torch import Tensor

from neft_zoo.noise import schedules
from neft_zoo.noise.additive import AdditiveNoise, NoiseTraits
from neft_zoo.noise.scales import ByLength, Scale
from neft_zoo.registry.strategy import Strategy
from neft_zoo.testing.cases import Case, delta_of


def _delta_has_the_embeddings_shape(strategy: Strategy, case: Case) -> None:
    batch, delta = delta_of(strategy, case)
    assert delta.shape == (*batch.input_ids.shape, case.width), f"got {tuple(delta.shape)}"
    assert delta.dtype == torch.float32, f"delta must be float32, got {delta.dtype}"
    assert delta.device == batch.input_ids.device
    assert delta.isfinite().all(), "delta must be finite"


def _delta_is_zero_on_padding_and_outside_where(strategy: Strategy, case: Case) -> None:
    batch, delta = delta_of(strategy, case)
    assert (delta[~batch.real] == 0).all(), "noise on padding"
    if isinstance(strategy.noise, AdditiveNoise):
        assert (delta[strategy.noise.where(batch) == 0] == 0).all(), "noise outside where"


def _delta_is_within_its_bound(strategy: Strategy, case: Case) -> None:
    batch, delta = delta_of(strategy, case)
    if not isinstance(strategy.noise, AdditiveNoise) or not isinstance(strategy.noise.scale, ByLength):
        return
    what, scale = strategy.noise.what, strategy.noise.scale
    if math.isinf(what.bound):
        return
    alpha = schedules.value_at(scale.alpha, case.progress)
    lengths = _lengths(case) if scale.length == "document" else torch.full_like(batch.lengths, delta.shape[1])
    bound = what.bound * alpha / (lengths * case.width).sqrt()
    noisy = batch.real & (strategy.noise.where(batch) != 0)
    ratio = (delta.abs().amax(-1) / bound)[noisy]
    assert (ratio <= 1 + 1e-6).all(), f"{ratio.max().item():.4f} of the bound"
    if alpha and noisy.sum() * case.width >= 64:
        assert ratio.max() > 0.5, f"only {ratio.max().item():.4f} of the bound is reached"


def _lengths(case: Case) -> Tensor:
    """Return every position's document length, counted without the package's own code."""
    rows = [[len(document)] * len(document) for document in case.documents]
    if case.layout not in ("right", "left"):
        return torch.tensor([sum(rows, [])]).float()
    longest = max(map(len, rows))
    pad = [[1] * (longest - len(row)) for row in rows]
    pairs = zip(rows, pad, strict=True)
    return torch.tensor([gap + row if case.layout == "left" else row + gap for row, gap in pairs]).float()


def _same_key_same_delta_and_another_key_another(strategy: Strategy, case: Case) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    batch, delta = delta_of(strategy, case)
    assert torch.equal(before, torch.get_rng_state()), "the global random state moved"
    torch.manual_seed(1)
    assert torch.equal(delta, delta_of(strategy, case)[1]), "the same key drew other numbers"
    # Compare several keys, since a cut may hit the same token twice by chance.
    others = (delta_of(strategy, replace(case, key=case.key ^ 1 << bit))[1] for bit in range(8))
    few = delta.count_nonzero() < 8
    assert few or any(not torch.equal(delta, other) for other in others), "another key, same numbers"


def _a_document_gets_the_same_noise_alone_and_among_others(strategy: Strategy, case: Case) -> None:
    if isinstance(strategy.noise, AdditiveNoise) and _counts_padding(strategy.noise.scale):
        return  # it uses the width of the batch by design
    if isinstance(strategy.noise, NoiseTraits) and strategy.noise.mixes_documents:
        return
    kept = case.documents[: len(case.documents) - _trailing_singles(case)]
    batch, delta = delta_of(strategy, case)
    noise_of = [delta[batch.real & (batch.document == number)] for number in range(int(batch.document.max()) + 1)]
    for number, document in enumerate(kept):
        if document in kept[:number]:
            continue  # equal documents draw different numbers
        alone = delta_of(strategy, replace(case, documents=(document,), layout="right"))[1][0]
        near = torch.allclose(noise_of[number], alone, rtol=1e-4, atol=min(1e-6, alone.abs().max().item() / 100))
        assert near, f"document {number} of {case.layout} differs from the document alone"


def _counts_padding(scale: Scale) -> bool:
    return isinstance(scale, ByLength) and scale.length == "padded"


def _trailing_singles(case: Case) -> int:
    """Return the number of one-token documents at the end of a flat batch, which look like padding."""
    count = 0
    for document in reversed(case.documents):
        if len(document) > 1:
            break
        count += 1
    return count if case.layout in ("packed", "padding-free") else 0


def _strength_zero_is_no_noise_and_double_is_double(strategy: Strategy, case: Case) -> None:
    if not isinstance(strategy.noise, AdditiveNoise):
        return
    _, once = delta_of(strategy, case)
    assert not delta_of(_numbers(strategy, 0.0), case)[1].any(), "noise at strength 0"
    assert torch.equal(delta_of(_numbers(strategy, 2.0), case)[1], 2 * once), "not linear in the strength"


def _numbers(strategy: Strategy, factor: float) -> Strategy:
    """Return the strategy with the numbers of its scale multiplied by a factor."""
    assert isinstance(strategy.noise, AdditiveNoise)
    scale = strategy.noise.scale
    assert is_dataclass(scale) and not isinstance(scale, type)
    name = fields(scale)[0].name
    times = _Times(getattr(scale, name), factor)
    return replace(strategy, noise=replace(strategy.noise, scale=replace(scale, **{name: times})))


@dataclass(frozen=True)
class _Times:
    value: schedules.Scalar
    factor: float

    def __call__(self, progress: float) -> float:
        return self.factor * schedules.value_at(self.value, progress)


BATCH_CHECKS: tuple[Callable[[Strategy, Case], None], ...] = (
    _delta_has_the_embeddings_shape,
    _delta_is_zero_on_padding_and_outside_where,
    _delta_is_within_its_bound,
    _same_key_same_delta_and_another_key_another,
    _a_document_gets_the_same_noise_alone_and_among_others,
    _strength_zero_is_no_noise_and_double_is_double,
)
