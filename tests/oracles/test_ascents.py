"""Ascents of the loss on the embeddings, written from the papers and computed one document at a time.

* fgm: Miyato et al., arXiv 1605.07725, equations 5 and 6, without the normalized embeddings.
* pgd: Madry et al., arXiv 1706.06083, with the L2 ball of a document.
* freelb: Zhu et al., arXiv 1909.11764, algorithm 1; github.com/zhuchen03/FreeLB, run_glue_freelb.py.
* token_vat: Li and Qiu, arXiv 2004.14543, algorithm 1; github.com/LinyangLee/Token-Aware-VAT, token_vat.py.
* cat: Xhonneux et al., arXiv 2405.15589; github.com/sophie-xhonneux/Continuous-AdvTrain, embedding_attack.py.
"""

import formulas
import pytest
import torch
from agreement import agree, seen
from observed import BOTH_SIDES, WIDTH, Observed, made_batch, plus


def gradient(documents, i, delta):
    """Return the gradient of a document's loss at a perturbation of its embeddings."""
    delta = delta.detach().requires_grad_()
    return torch.autograd.grad(documents.nll(i, documents.logits(i, {0: plus(delta)})), delta)[0]


def loss_at(documents, i, delta):
    return documents.nll(i, documents.logits(i, {0: plus(delta)}))


def ascend(documents, i, delta, size, radius):
    """Return a document's next perturbation: a step of the L2 norm `size`, back into the ball."""
    step = gradient(documents, i, delta)
    return formulas.ball(delta + size * step / step.norm(), radius)


def started(observed, i, alpha):
    """Return a document's random start, which is uniform within alpha / sqrt(n D)."""
    delta = observed.delta(0, i)
    bound = alpha / delta.numel() ** 0.5
    assert 0.9 * bound < delta.abs().max() <= bound
    return delta


def test_fgm(tiny):
    observed = Observed(tiny(), {"name": "fgm", "eps": 0.8}, made_batch())
    documents, loss = observed.documents, 0
    assert len(observed.passes) == 2
    for i in range(len(documents)):
        clean = torch.zeros(len(documents.ids[i]), WIDTH, dtype=torch.float64)
        step = gradient(documents, i, clean)
        seen(observed, 0, i, clean)
        seen(observed, 1, i, 0.8 * step / step.norm())
        loss = loss + loss_at(documents, i, clean) + loss_at(documents, i, 0.8 * step / step.norm())
    agree(observed, loss)


@pytest.mark.parametrize("radius", [1.0, 9.0])
@BOTH_SIDES
def test_pgd(tiny, radius, side):
    noise = {"name": "pgd", "steps": 3, "size": 0.5, "radius": radius, "alpha": 1.5}
    observed = Observed(tiny(), noise, made_batch(side))
    documents, loss = observed.documents, 0
    assert len(observed.passes) == 4
    for i in range(len(documents)):
        delta = started(observed, i, 1.5)
        for number in (1, 2, 3):
            delta = ascend(documents, i, delta, 0.5, radius)
            seen(observed, number, i, delta)
        loss = loss + loss_at(documents, i, delta)
    agree(observed, loss)


@pytest.mark.parametrize(("alpha", "radius"), [(1.5, 1.0), (1.5, 9.0), (4.0, 1.0)])
def test_freelb(tiny, alpha, radius):
    noise = {"name": "freelb", "steps": 3, "size": 0.5, "radius": radius, "alpha": alpha}
    free = Observed(tiny(), {**noise, "radius": 1e6}, made_batch())
    observed = Observed(tiny(), noise, made_batch())
    documents, loss = observed.documents, 0
    assert len(observed.passes) == 3
    for i in range(len(documents)):
        delta = formulas.ball(started(free, i, alpha), radius)
        for number in range(3):
            seen(observed, number, i, delta)
            loss = loss + loss_at(documents, i, delta) / 3
            delta = ascend(documents, i, delta, 0.5, radius)
    agree(observed, loss)


@pytest.mark.parametrize(
    ("name", "steps"), [("pgd", 0), ("pgd", 2), ("freelb", 1), ("freelb", 2), ("token_vat", 1), ("token_vat", 2)]
)
def test_every_pass_is_in_the_ball(tiny, name, steps):
    noise = {"name": name, "steps": steps, "size": 0.5, "radius": 1.0, "alpha": 4.0}
    observed = Observed(tiny(), noise, made_batch())
    for number in range(len(observed.passes)):
        for i in range(len(observed.documents)):
            assert observed.delta(number, i).norm() < 1 + 1e-6


@pytest.mark.parametrize("where", ["prompt", "completion", "real"])
def test_cat(tiny, where):
    noise = {"name": "cat", "eps": 0.1, "steps": 4, "size": 0.04, "where": where}
    observed = Observed(tiny(), noise, made_batch())
    documents, loss = observed.documents, 0
    assert len(observed.passes) == 5
    for i in range(len(documents)):
        graded = documents.labels[i] != -100
        chosen = {"prompt": ~graded, "completion": graded, "real": graded | True}[where].double()[:, None]
        unit = documents.embedded(i).norm(dim=-1).mean()
        delta = torch.zeros_like(documents.embedded(i))
        seen(observed, 0, i, delta)
        for number in range(1, 5):
            step = 0.04 * unit * gradient(documents, i, delta).sign() / WIDTH**0.5
            delta = formulas.balls(delta + chosen * step, 0.1 * unit)
            seen(observed, number, i, delta)
        loss = loss + loss_at(documents, i, delta)
    agree(observed, loss)
