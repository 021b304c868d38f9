"""Token-aware adversarial training, written from the paper and computed one document at a time.

Li and Qiu, arXiv 2004.14543, algorithm 1; github.com/LinyangLee/Token-Aware-VAT, token_vat.py (the order of the step,
the weights and the ball). The loss is the mean over the passes, as in the paper.

A pass shows only the sum of the two perturbations. To know the one that equal tokens share, all tokens of the
vocabulary are put into one document, and the ascent runs without steps: each pass then multiplies u by its weights.
"""

import formulas
import pytest
import torch
from agreement import agree, seen
from observed import BOTH_SIDES, VOCABULARY, WIDTH, Observed, made_batch, plus

ALPHA = 1.5


def shared(model):
    """Return the vector in [-1, 1] that the uses of each token share, which is NaN for the largest."""
    ids = torch.arange(1, VOCABULARY)[None]
    batch = {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}
    noise = {"name": "token_vat", "steps": 3, "size": 0.0, "alpha": ALPHA, "radius": 1e6}
    observed = Observed(model, noise, batch)
    sums = [observed.delta(number, 0) for number in range(3)]
    # with weights n: u, then n u, then n^3 u, since n u has the weights n^2
    first, second = sums[0] - sums[1], sums[1] - sums[2]
    ratio = second.norm(dim=1) / first.norm(dim=1)  # (n - n^3) / (1 - n) = n (1 + n)
    weight = ((1 + 4 * ratio).sqrt() - 1) / 2
    found = first / (1 - weight)[:, None] * first.numel() ** 0.5 / ALPHA
    largest = first.norm(dim=1).argmin()
    found[largest] = float("nan")
    assert 0.9 < found.nan_to_num().abs().max() < 1 + 1e-4
    return torch.cat([torch.full((1, WIDTH), float("nan"), dtype=found.dtype), found])


def ascended(gradient, delta, u, size, radius):
    """Return both perturbations after one step."""
    delta = delta + size * gradient / gradient.norm()
    lengths = gradient.norm(dim=1, keepdim=True)
    u = u + size * torch.where(lengths > 0, gradient / lengths.clamp(min=1e-30), 0.0)
    norms = u.norm(dim=1, keepdim=True)
    return inside(delta, norms / norms.max() * u, radius)


def inside(delta, u, radius):
    """Return both perturbations with their sum in the ball."""
    share = formulas.ball(delta + u, radius).norm() / (delta + u).norm()
    return share * delta, share * u


@pytest.mark.parametrize("radius", [0.8, 9.0])
@BOTH_SIDES
def test_token_vat(tiny, radius, side):
    uses = shared(tiny())
    noise = {"name": "token_vat", "steps": 3, "size": 0.5, "alpha": ALPHA, "radius": radius}
    free = Observed(tiny(), {**noise, "radius": 1e6}, made_batch(side))
    observed = Observed(tiny(), noise, made_batch(side))
    documents, loss = observed.documents, 0
    assert len(observed.passes) == 3
    for i in range(len(documents)):
        bound = ALPHA / documents.embedded(i).numel() ** 0.5
        u = uses[documents.ids[i]] * bound
        delta = free.delta(0, i) - u
        assert 0.9 * bound < delta.abs().max() < bound * (1 + 1e-4)
        delta, u = inside(delta, u, radius)
        for number in range(3):
            seen(observed, number, i, delta + u)
            total = (delta + u).detach().requires_grad_()
            part = documents.nll(i, documents.logits(i, {0: plus(total)}))
            loss = loss + part / 3
            gradient = torch.autograd.grad(part, total, retain_graph=True)[0]
            delta, u = ascended(gradient, delta, u, 0.5, radius)
    agree(observed, loss)
