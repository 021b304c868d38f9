"""Divergences of predictions and projections, written from their definitions.

Each divergence takes the logits of two passes, (tokens, vocabulary), and returns one number per token.
"""

import torch


def kl(p, q):
    p, q = p.log_softmax(-1), q.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def symmetric_kl(p, q):
    return kl(p, q) + kl(q, p)


def js(p, q):
    p, q = p.softmax(-1), q.softmax(-1)
    m = (p + q) / 2
    return ((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1)) / 2


def hellinger(p, q):
    return (p.softmax(-1).sqrt() - q.softmax(-1).sqrt()).square().sum(-1) / 2


def ball(delta, radius):
    """Return the point of the L2 ball next to a document's perturbation."""
    norm = delta.norm()
    return delta * (radius / norm) if norm > radius else delta


def balls(delta, radius):
    """Return the point of each token's L2 ball next to the token's perturbation."""
    return torch.stack([ball(token, radius) for token in delta])


def rms(state):
    return state.square().mean(-1, keepdim=True).sqrt()
