"""Passes that differ in their weights or dropout masks, written from the papers.

* sam: Foret et al., arXiv 2010.01412, equations 2 and 3 and algorithm 1 (L2 norm over all weights).
* r_drop: Liang et al., arXiv 2106.14448, equations 1 to 4; github.com/dropreg/R-Drop, compute_kl_loss (the mean of the
  two losses, half the sum of both directions of KL).
"""

import formulas
import torch
from agreement import agree, apart
from observed import Observed, made_batch
from torch import nn


def test_sam(tiny):
    observed = Observed(tiny(), {"name": "sam", "rho": 0.4}, made_batch())
    documents = observed.documents
    assert len(observed.passes) == 2
    first = documents.gradients(sum(documents.nll(i, documents.logits(i)) for i in range(len(documents))))
    norm = torch.cat([gradient.flatten() for gradient in first.values()]).norm()
    with torch.no_grad():
        for name, weight in documents.model.named_parameters():
            weight.add_(0.4 * first[name] / norm)
    for i in range(len(documents)):
        apart(observed.input(1, i), documents.embedded(i), 1e-6, "embeddings of the second pass")
    agree(observed, sum(documents.nll(i, documents.logits(i)) for i in range(len(documents))))


class Masked(nn.Dropout):
    """Dropout that keeps its masks, and uses them again where it is told to."""

    def __init__(self, p):
        super().__init__(p)
        self.drawn, self.given = [], None

    def forward(self, input):
        if self.given is not None:
            return input * self.given
        self.drawn.append((torch.rand_like(input) >= self.p) / (1 - self.p))
        return input * self.drawn[-1]


def test_r_drop(tiny):
    model = tiny()
    dropouts = [Masked(0.3) for _ in model.model.layers]
    for layer, dropout in zip(model.model.layers, dropouts, strict=True):
        layer.mlp = nn.Sequential(layer.mlp, dropout)
    torch.manual_seed(0)
    observed = Observed(model, {"name": "r_drop", "weight": 1.7}, made_batch())
    documents, loss = observed.documents, 0
    assert len(observed.passes) == 2 and not torch.equal(dropouts[0].drawn[0], dropouts[0].drawn[1])

    def logits(i, number):
        for dropout, layer in zip(dropouts, documents.model.model.layers, strict=True):
            layer.mlp[1].given = dropout.drawn[number][i][observed.real[i]]
        return documents.logits(i)

    for i in range(len(documents)):
        one, two = logits(i, 0), logits(i, 1)
        loss = loss + (documents.nll(i, one) + documents.nll(i, two)) / 2
        loss = loss + 1.7 / 2 * documents.mean(formulas.symmetric_kl(one, two))
    agree(observed, loss)
