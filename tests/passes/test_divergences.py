"""Divergences against their textbook definitions, and over the graded tokens of a batch."""

import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from naive import apart, furthest, gradients, packed, padded
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr, softmax
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GraniteConfig

from neft_zoo import NoiseError
from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.batch import Batch
from neft_zoo.noise.distributions import Gaussian
from neft_zoo.noise.scales import Fixed
from neft_zoo.passes import chunked_logits as chunks
from neft_zoo.passes import model_outputs
from neft_zoo.passes.chunked_logits import of_divergence, sum_in_chunks
from neft_zoo.passes.divergences import DIVERGENCES, divergence
from neft_zoo.passes.hooks import ModelHooks
from neft_zoo.passes.lm_head import LanguageHead
from neft_zoo.passes.step import Step

TEXTBOOK = {
    "kl": lambda p, q: rel_entr(p, q).sum(),
    "reverse_kl": lambda p, q: rel_entr(q, p).sum(),
    "symmetric_kl": lambda p, q: rel_entr(p, q).sum() + rel_entr(q, p).sum(),
    "js": lambda p, q: jensenshannon(p, q) ** 2,
    "hellinger": lambda p, q: 1 - np.sqrt(p * q).sum(),
}
DOCUMENTS = [[5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [15, 16, 17, 18, 19]]


def head_of(project, model_type="llama", **settings):
    """Return the head of a model that has nothing else."""
    config = SimpleNamespace(model_type=model_type, **settings)
    config.get_text_config = lambda decoder: config
    return LanguageHead(
        SimpleNamespace(config=config, get_input_embeddings=None, get_output_embeddings=lambda: project)
    )


def rows(seed, size=3.0, n=20, words=50):
    return torch.randn(n, words, generator=torch.Generator().manual_seed(seed)) * size


@pytest.mark.parametrize("size", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_divergence_equals_its_definition(name, size):
    one, two = rows(0, size), rows(1, size)
    pairs = zip(softmax(one.double().numpy(), -1), softmax(two.double().numpy(), -1), strict=True)
    expected = [TEXTBOOK[name](p, q) for p, q in pairs]
    np.testing.assert_allclose(divergence(name, one, two).numpy(), expected, rtol=2e-4, atol=1e-6)
    assert divergence(name, one, one).abs().max() < 1e-6
    assert divergence(name, one, two).min() > 0


@pytest.mark.parametrize("size", [0.01, 1.0, 5.0])
@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("sides", [(True, True), (True, False), (False, True)])
def test_its_gradient_is_that_of_automatic_differentiation_in_float64(name, size, sides):
    base = rows(2)
    logits = [(base + rows(side, size)).requires_grad_(needed) for side, needed in enumerate(sides)]
    weights = torch.arange(1.0, len(base) + 1)
    (divergence(name, *logits) * weights).sum().backward()
    wide = [each.detach().double().requires_grad_(each.requires_grad) for each in logits]
    log_p, log_q = (each.log_softmax(-1) for each in wide)
    (definition(name, log_p, log_q) * weights).sum().backward()
    for one, other in zip(logits, wide, strict=True):
        assert (one.grad is None) == (other.grad is None)
        if other.grad is not None:
            torch.testing.assert_close(
                one.grad.double(), other.grad, rtol=1e-3, atol=2e-5 * other.grad.abs().max().item()
            )


def definition(name, log_p, log_q):
    """Return a divergence of log-probabilities, by the textbook."""
    p, q = log_p.exp(), log_q.exp()
    mean = (p + q) / 2
    return {
        "kl": p * (log_p - log_q),
        "reverse_kl": q * (log_q - log_p),
        "symmetric_kl": p * (log_p - log_q) + q * (log_q - log_p),
        "js": (p * (log_p - mean.log()) + q * (log_q - mean.log())) / 2,
        "hellinger": (p + q) / 2 - (p * q).sqrt(),
    }[name].sum(-1)


def test_only_the_kl_divergences_have_a_direction():
    one, two = rows(0), rows(1)
    for name in DIVERGENCES:
        swapped = torch.allclose(divergence(name, one, two), divergence(name, two, one), rtol=1e-4)
        assert swapped == (name not in ("kl", "reverse_kl"))
    torch.testing.assert_close(divergence("kl", one, two), divergence("reverse_kl", two, one))


def test_bounds_hold_where_the_predictions_have_nothing_in_common():
    one, two = torch.tensor([[80.0, 0.0, 0.0]]), torch.tensor([[0.0, 80.0, 0.0]])
    assert divergence("js", one, two).item() == pytest.approx(math.log(2), rel=1e-6)
    assert divergence("hellinger", one, two).item() == pytest.approx(1, rel=1e-6)
    assert (divergence("js", rows(0, 20), rows(1, 20)) <= math.log(2) + 1e-6).all()


SMALL = dict(
    vocab_size=61, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, pad_token_id=0
)
MODELS = {
    "granite": lambda: GraniteConfig(**SMALL, logits_scaling=0.25, num_key_value_heads=2),
    "cohere": lambda: CohereConfig(**SMALL, logit_scale=4.0, num_key_value_heads=2),
    "gemma2": lambda: Gemma2Config(**SMALL, final_logit_softcapping=0.5, head_dim=8, num_key_value_heads=2),
    "hyperclovax": lambda: transformers.HyperCLOVAXConfig(**SMALL, logits_scaling=4.0, num_key_value_heads=2),
}


@pytest.fixture
def model(request, llama):
    torch.manual_seed(0)
    if request.param == "llama":
        return llama().train()
    return AutoModelForCausalLM.from_config(MODELS[request.param](), attn_implementation="eager").train()


def two_passes(model, inputs, name):
    """Return the divergence of a clean and a noisy pass, and the delta between the two."""
    hooks = ModelHooks(model, hidden=True)
    batch = Batch.from_inputs(inputs, key=3)
    given = {key: value for key, value in inputs.items() if key not in ("input_ids", "labels")}
    steps = Step(hooks, batch, lambda ids: model(input_ids=ids, **given))
    clean, noisy = steps.run(None), steps.run(AdditiveNoise(Gaussian(), Fixed(0.05)))
    found = steps.divergence(name, clean, noisy)
    hooks.detach()
    return found, noisy.deltas[-1]


@pytest.mark.parametrize("model", ["llama", *MODELS], indirect=True)
@pytest.mark.parametrize(("name", "kept"), [*((name, 0) for name in DIVERGENCES), ("js", model_outputs.KEPT_LOGITS)])
def test_over_a_batch_it_is_the_mean_at_graded_places_of_all_logits(model, name, kept, monkeypatch):
    monkeypatch.setattr(chunks, "POSITIONS_AT_A_TIME", 4)
    monkeypatch.setattr(model_outputs, "KEPT_LOGITS", kept)
    inputs = padded(DOCUMENTS)
    found, delta = two_passes(model, inputs, name)
    found.backward()
    got = gradients(model)

    # What the embedding module returns, Gemma's factor included, plus delta; the rest is the model's own.
    hook = model.get_input_embeddings().register_forward_hook(lambda module, args, output: output + delta)
    mask = inputs["attention_mask"]
    noisy = model(inputs["input_ids"], attention_mask=mask).logits
    hook.remove()
    clean = model(inputs["input_ids"], attention_mask=mask).logits
    places = [(r, t) for r, doc in enumerate(DOCUMENTS) for t in range(1, len(doc) - 1)]
    expected = apart(name, *(torch.stack([logits[r, t] for r, t in places]) for logits in (clean, noisy)))
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-3, abs=1e-8)
    assert furthest(got, gradients(model)) < 1e-3


@pytest.mark.parametrize("model", ["llama"], indirect=True)
@pytest.mark.parametrize("kept", [False, True])
def test_few_logits_are_not_computed_again(model, kept, monkeypatch):
    inputs, calls = padded(DOCUMENTS), []
    monkeypatch.setattr(
        model_outputs, "KEPT_LOGITS", inputs["input_ids"].numel() * model.config.vocab_size - (not kept)
    )
    model.get_output_embeddings().register_forward_hook(lambda module, args, output: calls.append(len(args[0])))
    two_passes(model, inputs, "js")[0].backward()
    graded = sum(len(document) - 2 for document in DOCUMENTS)
    assert calls == [len(DOCUMENTS)] * 2 + ([] if kept else [graded] * 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("wanted", ["all", "hidden states", "head"])
@pytest.mark.parametrize("constant", [False, True])
def test_gradients_made_on_the_way_are_those_of_chunks_that_are_computed_again(
    wanted, constant, bias, dtype, monkeypatch
):
    monkeypatch.setattr(chunks, "POSITIONS_AT_A_TIME", 4)
    torch.manual_seed(0)
    project = torch.nn.Linear(8, 31, bias=bias).to(dtype).requires_grad_(wanted != "hidden states")
    head = head_of(project, final_logit_softcapping=3.0, model_type="gemma2")
    sides = [(3 * torch.randn(10, 8)).to(dtype).requires_grad_(wanted != "head") for _ in range(2)]
    leaves = [each for each in (*sides, *project.parameters()) if each.requires_grad]

    def run():
        found = sum_in_chunks(partial(of_divergence, "kl", constant), head, sides)
        return found, torch.autograd.grad(2 * found, leaves, allow_unused=constant)

    assert head.is_one_product()
    value, fast = run()
    project.register_forward_hook(lambda *_: None)
    assert not head.is_one_product()
    expected, slow = run()
    torch.testing.assert_close(value, expected)
    close = {} if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.02}
    for one, other in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other, **close)


def test_a_head_that_does_not_train_gets_no_gradient():
    project = torch.nn.Linear(8, 31)
    head = head_of(project)
    sides = [torch.randn(3, 8, requires_grad=True) for _ in range(2)]
    sum_in_chunks(partial(of_divergence, "js", False), head, sides, trains=False).backward()
    assert all(each.grad.any() for each in sides) and project.weight.grad is project.bias.grad is None


@pytest.mark.parametrize("model", ["llama", *MODELS], indirect=True)
def test_the_head_is_the_models_own(model):
    ids = torch.arange(5, 17).view(2, 6)
    hidden = model.base_model(ids).last_hidden_state
    torch.testing.assert_close(LanguageHead(model)(hidden), model(ids).logits)
    bare = model.get_output_embeddings()(hidden)
    assert torch.equal(bare, model(ids).logits) == (model.config.model_type == "llama")


@pytest.mark.parametrize("model", ["llama"], indirect=True)
@pytest.mark.parametrize("name", DIVERGENCES)
def test_padding_side_and_packing_change_nothing(model, name):
    layouts = (padded(DOCUMENTS), padded(DOCUMENTS, side="left"), packed(DOCUMENTS))
    one, *others = (two_passes(model, inputs, name)[0].item() for inputs in layouts)
    assert others == pytest.approx([one] * 2, rel=1e-3) and one > 0


@pytest.mark.parametrize("model", ["llama"], indirect=True)
def test_nothing_graded_is_zero_and_no_labels_an_error(model):
    inputs = padded(DOCUMENTS)
    found, _ = two_passes(model, {**inputs, "labels": torch.full_like(inputs["labels"], -100)}, "js")
    found.backward()
    assert found == 0
    del inputs["labels"]
    with pytest.raises(NoiseError, match="compares predictions needs labels in the batch, got none"):
        two_passes(model, inputs, "js")


@pytest.mark.parametrize("positions", [1024, 16384])
def test_a_16_bit_heads_gradient_is_as_exact_as_that_of_all_positions_at_once(positions):
    """Summed in 16 bits over chunks, late positions would be rounded away."""
    torch.manual_seed(0)
    project = torch.nn.Linear(16, 24, bias=True).bfloat16()
    head = head_of(project)
    hidden, targets = (torch.randn(positions, 16) + 0.5).bfloat16(), torch.randint(0, 3, (positions,))

    def gradients_of(loss, parameters):
        return torch.cat([each.flatten().double() for each in torch.autograd.grad(loss / positions, parameters)])

    ours = gradients_of(sum_in_chunks(chunks.cross_entropy, head, [hidden], targets), [*project.parameters()])
    wide = [each.detach().double().requires_grad_() for each in project.parameters()]
    logits = torch.nn.functional.linear(hidden.double(), *wide)
    exact = gradients_of(chunks.cross_entropy(logits, targets).sum(), wide)
    assert (ours - exact).norm() <= 0.004 * exact.norm()


@pytest.mark.parametrize("same", [True, False])
def test_dropout_of_an_adapted_head_is_the_same_in_all_passes_if_they_share_it(same):
    project = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(8, 31)).train()
    head = head_of(project)
    hidden = torch.randn(300, 8, requires_grad=True)
    value = sum_in_chunks(partial(of_divergence, "kl", False), head, [hidden, hidden], same_dropout=same)
    value.backward()  # runs every chunk again
    assert (value.item() == pytest.approx(0, abs=1e-4)) == same and (hidden.grad.abs().max() < 1e-4) == same
    project.eval()
    assert not head.has_dropout()
