"""The comparisons of an oracle with what was observed.

Transformers computes a Llama's norms and its loss in float32 whatever the weights are, which leaves 1e-7 of what a
float64 model has.
"""

import torch

LOSS, GRADIENT, DELTA = 1e-6, 3e-5, 3e-5


def agree(observed, loss):
    """Assert that the loss and the gradient of every weight are the oracle's."""
    difference = (observed.loss.double() / loss.detach() - 1).abs().item()
    assert difference < LOSS, f"loss: {observed.loss.item()} instead of {loss.item()}"
    for name, gradient in observed.documents.gradients(loss).items():
        apart(observed.gradients[name], gradient, GRADIENT, f"gradient of {name}")


def seen(observed, number, i, delta):
    """Assert that a pass saw a document's embeddings with the oracle's perturbation."""
    apart(observed.delta(number, i), delta, DELTA, f"perturbation of document {i} in pass {number}")


def seen_at(observed, number, i, states):
    """Assert that every layer of a pass had the oracle's input."""
    for layer, state in states.items():
        apart(observed.input(number, i, layer), state, DELTA, f"input of layer {layer} in pass {number}")


def apart(found, expected, limit, what):
    difference = ((found - expected).norm() / expected.norm().clamp(min=1e-9)).item()
    cosine = torch.nn.functional.cosine_similarity(found.flatten(), expected.detach().flatten(), 0).item()
    assert difference < limit, f"{what}: relative difference {difference:.2e}, cosine {cosine:.6f}"
