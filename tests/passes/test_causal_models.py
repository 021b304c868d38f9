"""Every causal language model of transformers trains right under noise, or is refused in one sentence.

What is right is said by the model itself, trained by hand: noise is read where it arrived and added once more, out of
place, to a model without hooks; a divergence is computed from the logits that the model returned.
"""

import math
from functools import partial

import pytest
import torch
from causal_models import NAMES, build, extra_inputs
from selection import quick
from torch.nn.functional import cross_entropy, kl_div

from neft_zoo import NoiseError, attach
from neft_zoo.passes import model_outputs
from neft_zoo.passes.anatomy import find_embedding
from neft_zoo.passes.layers import find_layers, states_given, with_states

LENGTHS = (9, 16, 12)
ALPHA, SIZE = 5.0, 0.05
R3F = {"name": "r3f", "eps": 0.5, "relative": True}
# Not here: what it lacks.
ABSENT = {
    "gemma3n": "its vision tower needs timm",
    "gemma4_assistant": "it reads the keys and values of another model",
    "gemma4_unified_assistant": "it reads the keys and values of another model",
}
REFUSED = {
    "cpmant": r"must look up the token ids that it is called with, of shape \(3, 16\), got \(3, 48\)",
    "musicgen": "must have a token embedding .* which has 4",
    "musicgen_melody": "must have a token embedding .* which has 4",
    "xlnet": r"must look up the token ids that it is called with, of shape \(3, 16\), got \(16, 3\)",
}
PREDICTIONS_REFUSED = {"prophetnet": "needs logits that the LM head makes, or a loss that is their cross-entropy"}
STATES, LIST = (
    "layers must take one state per token, got ",
    "must have a list of decoder layers, each of which is given ",
)
LAYERS_REFUSED = {
    "blt": LIST + "what the one before returns, got BltForCausalLM, which has 3",
    "deepseek_v4": STATES + "3 dimensions",
    "gemma3n_text": STATES + "3 dimensions",
    "git": STATES,
    "hrm_text": LIST + "what the one before returns, got HrmTextForCausalLM, which has none",
    "hy_v4": STATES + "3 dimensions",
    "prophetnet": STATES + r"\(3, 48\) states of \(3, 16\)",
    "reformer": "decoder layers must run with gradients on, got ReformerModelWithLMHead, which runs them without",
    "xlm": LIST + "what the one before returns, got XLMWithLMHeadModel, which has none",
}


def batch_for(name):
    """Return three documents of different lengths, padded."""
    mask = torch.stack([torch.arange(16) < length for length in LENGTHS])
    ids = torch.randint(5, 60, mask.shape, generator=torch.Generator().manual_seed(1)) * mask
    labels = ids.masked_fill(~mask, -100)
    return {"input_ids": ids, "attention_mask": mask.long(), "labels": labels, **extra_inputs(name, len(ids))}


def gradients(model, loss):
    """Return the gradients of a loss at the parameters, by name; the model's are 0 afterwards."""
    loss.backward()
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    assert any(gradient.any() for gradient in found.values())
    return found


def step(model, noise, inputs, watch):
    """Return the loss and gradients of a step of noise, while functions that read the model are hooked on it."""
    with attach(model, noise, total_steps=1) as handle:
        handles = watch(model)
        torch.manual_seed(7)
        loss = handle.loss(inputs)
        for each in handles:
            each.remove()
    return loss.detach(), gradients(model, loss)


def by_hand(model, inputs, watch):
    """Return the loss and gradients of a model without hooks of ours, what `watch` adds included."""
    handles = watch(model)
    torch.manual_seed(7)
    loss = model(**inputs).loss
    found = loss.detach(), gradients(model, loss)
    for each in handles:
        each.remove()
    return found


def check_same(one, other):
    torch.testing.assert_close(one[0], other[0], rtol=1e-5, atol=1e-6)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-3, atol=1e-6, msg=name)


def check_embedding(name, inputs):
    """Noise of NEFTune's size is on the tokens of every document and nowhere else, and trains as if added by hand."""
    arrived, clean = [], []

    def read(module, args, output):
        arrived.append(output.detach().clone())

    def add(module, args, output):
        clean.append(output.detach())
        return output + (arrived[0] - clean[0])

    def on_embedding(hook, model):
        return [find_embedding(model).register_forward_hook(hook)]

    noisy = step(build(name), {"name": "neft_uniform", "alpha": ALPHA}, inputs, partial(on_embedding, read))
    check_same(noisy, by_hand(build(name), inputs, partial(on_embedding, add)))
    delta, real = arrived[0] - clean[0], inputs["attention_mask"] == 1
    assert len(arrived) == len(clean) == 1 and not delta[~real].any()
    for row, length in enumerate(LENGTHS):
        bound = ALPHA / math.sqrt(length * delta.shape[-1])
        assert 0.9 * bound < delta[row][real[row]].abs().max() < bound + 1e-5


def check_layers(name, inputs):
    """Noise is on the input of every layer that runs, and trains as if added by hand."""
    arrived, clean = {}, {}

    def read(number, module, args, kwargs):
        arrived[number] = states_given(args, kwargs).detach().clone()

    def add(number, module, args, kwargs):
        states = states_given(args, kwargs)
        clean[number] = states.detach()
        return with_states(states + (arrived[number] - clean[number]), args, kwargs)

    def on_layers(hook, model):
        layers = enumerate(find_layers(model))
        return [each.register_forward_pre_hook(partial(hook, number), with_kwargs=True) for number, each in layers]

    noisy = step(build(name), {"name": "hype", "size": SIZE}, inputs, partial(on_layers, read))
    check_same(noisy, by_hand(build(name), inputs, partial(on_layers, add)))
    real = inputs["attention_mask"] == 1
    assert len(arrived) >= 3  # a layer that reads images does not run without one (Mllama)
    for number, states in arrived.items():
        delta = states - clean[number]
        assert not delta[~real].any() and delta[real].std().item() == pytest.approx(SIZE, rel=0.1)


def shift_of(model, inputs):
    """Return how many positions before a label the model's own loss reads its prediction."""
    torch.manual_seed(7)
    output, labels = model(**inputs), inputs["labels"]
    logits = output.logits[:, -labels.shape[1] :]
    losses = [cross_entropy(logits[:, : 16 - by].flatten(0, 1), labels[:, by:].flatten()) for by in (0, 1)]
    apart = [(loss - output.loss).abs() for loss in losses]
    return int(apart[1] <= apart[0])


def check_predictions(model, inputs, noise):
    """The divergence of two passes is that of the logits which the model returned in them, gradients included."""
    outputs, shift = [], shift_of(model, inputs)
    with attach(model, noise, total_steps=1) as handle:
        reading = model.register_forward_hook(lambda module, args, output: outputs.append(output))
        torch.manual_seed(7)
        loss = handle.loss(inputs)
        reading.remove()
    graded = inputs["labels"][:, shift:] != -100
    length = inputs["labels"].shape[1]
    p, q = (each.logits[:, -length:][:, : length - shift][graded].float().log_softmax(-1) for each in outputs)
    both = sum(kl_div(a, b, log_target=True, reduction="batchmean") for a, b in ((p, q), (q, p)))
    assert both > 1e-7
    first, second = (output.loss for output in outputs)
    expected = (first + second + both) / 2 if noise == "r_drop" else first + both
    trained = {key: weight for key, weight in model.named_parameters() if weight.requires_grad}
    wanted = torch.autograd.grad(expected, list(trained.values()), allow_unused=True, retain_graph=True)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)
    found = gradients(model, loss)
    for key, gradient in zip(trained, wanted, strict=True):
        if gradient is not None:
            torch.testing.assert_close(found[key], gradient, rtol=1e-2, atol=1e-5, msg=key)


def drops(model, inputs):
    """Return whether two passes of a model differ by their dropout masks."""
    torch.manual_seed(7)
    return not torch.equal(*(model(**inputs).logits for _ in range(2)))


AREA = "Causal language models of transformers"


@pytest.mark.cell(AREA, "{name}")
@pytest.mark.parametrize("name", quick(NAMES, "modernbert-decoder", "openai-gpt", "bart", "cpmant"))
def test_it_trains_right_or_is_refused(refused, monkeypatch, name):
    monkeypatch.setattr(model_outputs, "KEPT_LOGITS", 0)  # predictions go through the head where that is right
    if name in ABSENT:
        pytest.skip(ABSENT[name])
    inputs = batch_for(name)
    if name in REFUSED:
        with pytest.raises(NoiseError, match=REFUSED[name]) as caught:
            check_embedding(name, inputs)
        refused(caught)
        return
    check_embedding(name, inputs)
    if name not in LAYERS_REFUSED:
        check_layers(name, inputs)
    model = build(name)
    if name in PREDICTIONS_REFUSED:
        with pytest.raises(NoiseError, match=PREDICTIONS_REFUSED[name]):
            attach(model, R3F, total_steps=1).loss(inputs)
        return
    check_predictions(model, inputs, R3F)
    if drops(model, inputs):
        check_predictions(model, inputs, "r_drop")
    else:
        with pytest.raises(NoiseError, match="two passes of a model without dropout are the same"):
            attach(model, "r_drop", total_steps=1)


@pytest.mark.cell("Causal language models, noise on layers", "{name}")
@pytest.mark.parametrize("name", quick(LAYERS_REFUSED, "blt", "prophetnet"))
def test_noise_on_layers_is_refused(refused, name):
    with pytest.raises(NoiseError, match=LAYERS_REFUSED[name]) as caught:
        check_layers(name, batch_for(name))
    refused(caught)
