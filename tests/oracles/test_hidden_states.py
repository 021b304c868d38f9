"""Methods that change the inputs of decoder layers, written from the papers, one document at a time.

* hidden_cut: Chen et al., arXiv 2106.00149; github.com/SALT-NLP/HiddenCut, trainer.py (the losses of cutoff).
* lnsr: Hua et al., arXiv 2107.04835 (squared distances of the outputs of layer b and all higher ones).
* lat: Casper et al., arXiv 2403.05030 (projected ascent on hidden states), from 0 and with the norms of tokens.
* vaccine: Huang et al., arXiv 2402.01109, algorithm 1; github.com/git-disl/Vaccine, trainer.py.
"""

import formulas
import pytest
import torch
from agreement import agree, seen_at
from observed import BOTH_SIDES, WIDTH, Observed, made_batch, plus


@BOTH_SIDES
def test_hidden_cut(tiny, side):
    noise = {"name": "hidden_cut", "ratio": 0.3, "cut_weight": 0.7, "weight": 3.0}
    observed = Observed(tiny(), noise, made_batch(side))
    documents, loss = observed.documents, 0
    assert len(observed.passes) == 2
    for i in range(len(documents)):
        state = observed.input(1, i, 1)
        mask = (state.norm(dim=1, keepdim=True) > 1e-6).double()
        cut = (mask == 0)[:, 0].nonzero().flatten()
        assert len(cut) == cut[-1] - cut[0] + 1 and abs(len(cut) - 0.3 * len(mask)) <= 0.5
        clean, inputs, _ = documents.run(i)
        rounding = state * (1 - mask)  # of float64 states to float32, which the layer's norm makes 1000 times larger
        cut, cut_inputs, _ = documents.run(i, {1: lambda h, m=mask, rest=rounding: h * m + rest})
        seen_at(observed, 0, i, {n: state[0] for n, state in inputs.items()})
        seen_at(observed, 1, i, {n: state[0] for n, state in cut_inputs.items()})
        loss = loss + documents.nll(i, clean) + 0.7 * documents.nll(i, cut)
        loss = loss + 3.0 * documents.mean(formulas.js(clean, cut))
    agree(observed, loss)


@pytest.mark.parametrize("first", [0, 1])
def test_lnsr(tiny, first):
    observed = Observed(tiny(), {"name": "lnsr", "size": 0.4, "weight": 2.0, "first": first}, made_batch())
    documents, loss = observed.documents, 0
    assert len(observed.passes) == 2
    for i in range(len(documents)):
        logits, inputs, clean = documents.run(i)
        z = observed.input(1, i, first) - inputs[first][0].detach()
        assert 0.85 < (z / formulas.rms(inputs[first][0]) / 0.4).std() < 1.15
        _, noisy_inputs, noisy = documents.run(i, {first: plus(z)})
        seen_at(observed, 0, i, {n: state[0] for n, state in inputs.items()})
        seen_at(observed, 1, i, {n: state[0] for n, state in noisy_inputs.items()})
        distances = sum((clean[n] - noisy[n]).square().sum() / WIDTH for n in range(first, len(clean)))
        loss = loss + documents.nll(i, logits) + 2.0 * documents.mean(distances)  # of all tokens, per graded one
    agree(observed, loss)


@pytest.mark.parametrize("layers", [[1], [0, 1]])
def test_lat(tiny, layers):
    noise = {"name": "lat", "eps": 0.8, "steps": 3, "size": 0.3, "layers": layers}
    observed = Observed(tiny(), noise, made_batch())
    documents, loss = observed.documents, 0
    assert len(observed.passes) == 4
    for i in range(len(documents)):
        deltas = [torch.zeros_like(documents.embedded(i)) for _ in layers]
        for number in range(4):
            deltas = [delta.requires_grad_() for delta in deltas]
            logits, inputs, _ = documents.run(i, dict(zip(layers, map(plus, deltas), strict=True)))
            seen_at(observed, number, i, {n: state[0] for n, state in inputs.items()})
            part = documents.nll(i, logits)
            loss = loss + part * (number == 3)
            steps = torch.autograd.grad(part, deltas, retain_graph=True)
            moved = [delta.detach() + 0.3 * unit(step) for delta, step in zip(deltas, steps, strict=True)]
            deltas = [formulas.balls(delta, 0.8) for delta in moved]
    agree(observed, loss)


def unit(step):
    """Return the direction of each token's gradient, and 0 where no prediction depends on the token."""
    norm = step.norm(dim=-1, keepdim=True)
    return torch.where(norm > 0, step / norm.clamp(min=1e-30), 0.0)


@pytest.mark.parametrize("layers", ["all", [1]])
@BOTH_SIDES
def test_vaccine(tiny, layers, side):
    observed = Observed(tiny(), {"name": "vaccine", "rho": 1.2, "layers": layers}, made_batch(side))
    documents, loss = observed.documents, 0
    chosen = [0, 1] if layers == "all" else layers
    assert len(observed.passes) == 2
    for i in range(len(documents)):
        logits, inputs, _ = documents.run(i)
        seen_at(observed, 0, i, {n: state[0] for n, state in inputs.items()})
        found = torch.autograd.grad(documents.nll(i, logits), [inputs[n] for n in chosen])
        norm = torch.cat([g.flatten() for g in found]).norm()
        changes = {n: plus(1.2 * g / norm) for n, g in zip(chosen, found, strict=True)}
        logits, inputs, _ = documents.run(i, changes)
        seen_at(observed, 1, i, {n: state[0] for n, state in inputs.items()})
        loss = loss + documents.nll(i, logits)
    agree(observed, loss)
