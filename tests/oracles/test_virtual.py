"""Ascents of a divergence from the clean prediction, written from the papers, one document at a time.

* smart: Jiang et al., arXiv 1911.03437, algorithm 1 (steps of unit infinity norm, clamped coordinates), without the
  moving average of the model; github.com/namisan/mt-dnn, perturbation.py.
* vat: Miyato et al., arXiv 1704.03976, algorithm 1 and equations 6 to 8; github.com/takerum/vat_tf, vat.py.
"""

import formulas
import pytest
import torch
from agreement import agree, seen
from observed import BOTH_SIDES, Observed, made_batch, plus


def gradient(documents, i, divergence, delta):
    """Return the gradient of the divergence from the clean prediction to that at a perturbation."""
    delta = delta.detach().requires_grad_()
    with torch.no_grad():
        clean = documents.logits(i)
    distance = documents.mean(divergence(clean, documents.logits(i, {0: plus(delta)})))
    return torch.autograd.grad(distance, delta)[0]


@pytest.mark.parametrize(("relative", "steps"), [(True, 1), (False, 2)])
@pytest.mark.parametrize("size", [0.05, 2.0])
def test_smart(tiny, relative, steps, size):
    noise = {"name": "smart", "radius": 0.1, "start": 0.08, "size": size, "weight": 1.5}
    observed = Observed(tiny(), {**noise, "steps": steps, "relative": relative}, made_batch())
    documents, loss = observed.documents, 0
    assert len(observed.passes) == steps + 2
    for i in range(len(documents)):
        unit = formulas.rms(documents.embedded(i)).mean() if relative else 1.0
        delta = observed.delta(1, i)
        seen(observed, 0, i, torch.zeros_like(delta))
        for number in range(2, steps + 2):
            step = gradient(documents, i, formulas.symmetric_kl, delta)
            delta = (delta + size * unit * step / step.abs().max()).clamp(-0.1 * unit, 0.1 * unit)
            seen(observed, number, i, delta)
        clean, worst = documents.logits(i), documents.logits(i, {0: plus(delta)})
        loss = loss + documents.nll(i, clean) + 1.5 * documents.mean(formulas.symmetric_kl(clean, worst))
    agree(observed, loss)


@pytest.mark.parametrize("relative", [False, True])
def test_start_of_smart_has_one_sigma_for_all_tokens(tiny, relative):
    noise = {"name": "smart", "radius": 0.3, "start": 0.2, "relative": relative}
    observed = Observed(tiny(), noise, made_batch())
    for i in range(len(observed.documents)):
        rms = formulas.rms(observed.documents.embedded(i)).flatten()
        sigma = 0.2 * (rms.mean() if relative else 1.0)
        found = formulas.rms(observed.delta(1, i)).flatten() / sigma
        assert found.min() > 0.6 and found.max() < 1.4  # 16 numbers each: 0.18 around 1


@pytest.mark.parametrize("steps", [1, 2])
@BOTH_SIDES
def test_vat(tiny, steps, side):
    noise = {"name": "vat", "radius": 0.9, "start": 0.2, "weight": 1.5, "steps": steps}
    observed = Observed(tiny(), noise, made_batch(side))
    documents, loss = observed.documents, 0
    assert len(observed.passes) == steps + 2
    for i in range(len(documents)):
        delta = observed.delta(1, i)
        assert (delta.norm() / 0.2 - 1).abs() < 1e-6
        seen(observed, 0, i, torch.zeros_like(delta))
        for number in range(2, steps + 2):
            step = gradient(documents, i, formulas.kl, delta)
            delta = (0.2 if number <= steps else 0.9) * step / step.norm()
            seen(observed, number, i, delta)
        clean, worst = documents.logits(i), documents.logits(i, {0: plus(delta)})
        loss = loss + documents.nll(i, clean) + 1.5 * documents.mean(formulas.kl(clean.detach(), worst))
    agree(observed, loss)
