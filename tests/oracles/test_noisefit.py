"""NoiseFiT, written from the paper and the second version of its code, one document at a time.

Khadangi et al., arXiv 2504.03302; github.com/akhadangi/NoiseFiT, NoiseFiT.py: adaptive_noise_injection (its median is
the lower one of an even number of coordinates), the noise without gradient, and the loss with a fixed teacher.

The normal numbers belong to tokens and positions, not to states. So what is left of the noise after it is divided by
the scale of the formula is normal, and the same in two models, only if the scale is the formula's.
"""

import formulas
import torch
from agreement import agree, apart, seen_at
from observed import WIDTH, Observed, made_batch, plus

ARGUMENTS = {"name": "noisefit", "size": 5.0, "beta": 0.7, "layers": [0, 1], "share": 0.3, "consistency": 0.8}


def scale(state):
    """Return the standard deviations of the noise on a document's states."""
    median = state.median(-1, keepdim=True).values
    mad = (state - median).abs().median(-1, keepdim=True).values
    variance = state.var(-1, keepdim=True)
    loudness = (variance / variance.mean()).exp()
    assert loudness.min() < 5 < loudness.max()
    return 5.0 / WIDTH**0.5 * mad * (-0.7 * (state - median).abs() / mad).exp() * loudness.clamp(max=5)


def added(observed, number, i):
    """Return what a noisy pass added to each layer's input, and the normal numbers in it."""
    changes, normal = {}, []
    for layer in (0, 1):
        state = observed.documents.run(i, changes)[1][layer][0].detach()
        delta = observed.input(number, i, layer) - state
        changes[layer] = plus(delta)
        normal.append(delta / scale(state))
    return changes, torch.stack(normal)


def test_scale_of_noisefit(tiny):
    one, other = (Observed(tiny(seed), ARGUMENTS, made_batch()) for seed in (0, 1))
    drawn = []
    for number in (1, 2):
        for i in range(len(one.documents)):
            normal = added(one, number, i)[1]
            apart(normal, added(other, number, i)[1], 1e-3, "normal numbers")
            drawn.append(normal.flatten())
    drawn = torch.cat(drawn)
    assert abs(drawn.mean()) < 0.1 and 0.95 < drawn.std() < 1.05 and drawn.unique().numel() == drawn.numel()


def test_loss_of_noisefit(tiny):
    observed = Observed(tiny(), ARGUMENTS, made_batch())
    documents, loss = observed.documents, 0
    assert len(observed.passes) == 3
    for i in range(len(documents)):
        clean, inputs, _ = documents.run(i)
        seen_at(observed, 0, i, {n: state[0] for n, state in inputs.items()})
        one, two = (documents.logits(i, added(observed, number, i)[0]) for number in (1, 2))
        teacher = formulas.kl(clean.detach(), one) + formulas.kl(clean.detach(), two)
        loss = loss + 0.3 * documents.nll(i, clean) + 0.7 / 2 * documents.mean(teacher)
        loss = loss + 0.8 * documents.mean(formulas.kl(two.detach(), one))
    agree(observed, loss)
