"""Losses of a clean and a noisy pass, written from the papers and computed one document at a time.

* symnoise: Yadav and Singh, arXiv 2312.01523 (the mean over the batch and its mirror image).
* cutoff_*: Shen et al., arXiv 2009.13818 (cross entropies of both views, and the Jensen-Shannon divergence, which is
  the mean KL from each view to their mean); github.com/dinghanshen/Cutoff has the arguments of KL reversed.
* r3f: Aghajanyan et al., arXiv 2008.03156; fairseq, examples/rxf (both directions of KL are added, without a half).
* pdr: Cheng et al., arXiv 2010.12638; github.com/hao-cheng/f-divergence, loss_helper.py.
"""

import formulas
import pytest
import torch
from agreement import agree, seen
from observed import BOTH_SIDES, WIDTH, Observed, made_batch, plus, times


@BOTH_SIDES
def test_symnoise(tiny, side):
    observed = Observed(tiny(), {"name": "symnoise", "alpha": 2.0}, made_batch(side))
    documents, loss = observed.documents, 0
    assert len(observed.passes) == 2
    for i in range(len(documents)):
        delta = observed.delta(0, i)
        size = 2.0 / (len(documents.ids[i]) * WIDTH) ** 0.5
        assert torch.allclose(delta.abs(), torch.full_like(delta, size))
        seen(observed, 1, i, -delta)
        for sign in (1, -1):
            loss = loss + documents.nll(i, documents.logits(i, {0: plus(sign * delta)})) / 2
    agree(observed, loss)


@pytest.mark.parametrize("name", ["cutoff_token", "cutoff_span", "cutoff_feature"])
@BOTH_SIDES
def test_cutoff(tiny, name, side):
    noise = {"name": name, "ratio": 0.3, "cut_weight": 0.7, "weight": 3.0}
    observed = Observed(tiny(), noise, made_batch(side))
    documents, loss = observed.documents, 0
    assert len(observed.passes) == 2
    for i in range(len(documents)):
        mask = (observed.input(1, i).abs() > 1e-6).double()
        shape_of_cut(name, mask, 0.3)
        seen(observed, 0, i, torch.zeros_like(mask))
        seen(observed, 1, i, documents.embedded(i) * (mask - 1))
        clean, cut = documents.logits(i), documents.logits(i, {0: times(mask)})
        loss = loss + documents.nll(i, clean) + 0.7 * documents.nll(i, cut)
        loss = loss + 3.0 * documents.mean(formulas.js(clean, cut))
    agree(observed, loss)


def shape_of_cut(name, mask, ratio):
    """Assert that whole tokens, one span of them, or whole features are cut."""
    length = len(mask)
    if name == "cutoff_feature":
        assert 0 < mask[0].sum() < WIDTH and (mask == mask[0]).all()
        return
    kept = mask[:, 0]
    assert (mask == kept[:, None]).all() and kept.sum() < length
    if name == "cutoff_span":
        cut = (kept == 0).nonzero().flatten()
        assert len(cut) == cut[-1] - cut[0] + 1 and abs(len(cut) - ratio * length) <= 0.5


@pytest.mark.parametrize("arguments", [{"what": "uniform"}, {"what": "gaussian", "relative": True}])
def test_r3f(tiny, arguments):
    observed = Observed(tiny(), {"name": "r3f", "eps": 0.2, "weight": 1.5, **arguments}, made_batch())
    documents, loss = observed.documents, 0
    assert len(observed.passes) == 2
    for i in range(len(documents)):
        delta = observed.delta(1, i)
        if arguments["what"] == "uniform":
            assert 0.18 < delta.abs().max() <= 0.2
        else:
            assert 0.85 < (delta / formulas.rms(documents.embedded(i)) / 0.2).std() < 1.15
        seen(observed, 0, i, torch.zeros_like(delta))
        clean, noisy = documents.logits(i), documents.logits(i, {0: plus(delta)})
        loss = loss + documents.nll(i, clean) + 1.5 * documents.mean(formulas.symmetric_kl(clean, noisy))
    agree(observed, loss)


@pytest.mark.parametrize("divergence", ["kl", "reverse_kl", "symmetric_kl", "js", "hellinger"])
def test_pdr(tiny, divergence):
    noise = {"name": "pdr", "eps": 0.2, "weight": 2.0, "divergence": divergence}
    observed = Observed(tiny(), noise, made_batch())
    documents, loss = observed.documents, 0
    assert len(observed.passes) == 2
    formula = getattr(formulas, divergence, lambda p, q: formulas.kl(q, p))
    for i in range(len(documents)):
        delta = observed.delta(1, i)
        assert 0.85 < delta.std() / 0.2 < 1.15
        seen(observed, 0, i, torch.zeros_like(delta))
        clean, noisy = documents.logits(i), documents.logits(i, {0: plus(delta)})
        loss = loss + documents.nll(i, clean) + 2.0 * documents.mean(formula(clean, noisy))
    agree(observed, loss)
