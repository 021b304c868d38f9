"""Multi-pass entries against loops written in plain torch: loss and gradients."""

import numpy as np
import pytest
import torch
from naive import DOCUMENTS, INPUTS, Naive, Quadratic, Spy, apart, furthest, gradients, own, packed, padded

from neft_zoo import NoiseError, attach, make
from neft_zoo.noise import randomness
from neft_zoo.noise.additive import AtLayers
from neft_zoo.noise.batch import Batch, step_key
from neft_zoo.noise.robust import Redrawn
from neft_zoo.objectives.clean_teacher import CleanTeacher
from neft_zoo.objectives.consistency import Consistency, DropoutConsistency, LayerStability
from neft_zoo.objectives.norm_ball import Ball
from neft_zoo.passes.records import FixedNoise
from neft_zoo.registry.strategy import Strategy


@pytest.fixture
def model(llama):
    return llama(num_hidden_layers=3, attn_implementation="eager").double().train()


def start(strategy, naive):
    """Return what the entry's own noise adds first, as a constant: the one thing that is taken from the package."""
    batch = Batch.from_inputs(INPUTS, key=step_key(0, 0, 0))
    noise = strategy.noise
    embeds = naive.table[INPUTS["input_ids"]].detach()
    if not isinstance(noise, AtLayers):
        return {-1: noise(embeds, batch).double()}
    states, count = naive.run()[2], len(naive.model.model.layers)
    numbers = range(count) if noise.layers == "all" else sorted(n % count for n in noise.layers)
    return {n: noise(states[n - 1].detach() if n else embeds, batch.at(n)).double() for n in numbers}


def compare(model, name, reference, **arguments):
    """Compare the loss and the gradients of an entry with those of `reference(naive, start)`."""
    strategy = make(name, **arguments)
    with attach(model, strategy, total_steps=1) as handle:
        loss = handle.loss(INPUTS)
    loss.backward()
    got = gradients(model)
    naive = Naive(model, INPUTS)
    expected = reference(naive, start(strategy, naive) if strategy.noise is not None else {})
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert furthest(got, gradients(model)) < 1e-4


class Signed:
    """A noise times a sign."""

    def __init__(self, noise, sign):
        self.noise, self.sign = noise, sign

    def __call__(self, embeds, batch):
        return self.sign * self.noise(embeds, batch)


def negative(deltas):
    return {site: -delta for site, delta in deltas.items()}


def test_one_pass_is_the_loss_under_the_noise(model):
    compare(model, "neft_uniform", lambda naive, d: naive.loss(d), alpha=20)


def test_noise_that_is_given_is_added_as_it_is_unless_a_sign_is_given():
    batch = Batch.from_inputs(INPUTS)
    delta = torch.randn(*INPUTS["input_ids"].shape, 8)
    assert torch.equal(FixedNoise({-1: delta})(delta * 0, batch), delta)
    assert torch.equal(FixedNoise({-1: delta * 0, 0: delta}, sign=-1.0)(delta * 0, batch.at(0)), -delta)


def test_symnoise_is_the_mean_of_both_signs_of_one_draw(model):
    def reference(naive, d):
        return (naive.loss(d) + naive.loss(negative(d))) / 2

    compare(model, "symnoise", reference, alpha=20)


def test_symnoise_uses_one_delta_in_both_passes_and_is_even_in_it(llama):
    strategy, model = make("symnoise", alpha=20), llama().train()
    losses = []
    for sign in (1.0, -1.0):
        spy = Spy(strategy.objective)
        noise = Signed(strategy.noise, sign)
        losses.append(attach(model, Strategy(noise, spy), total_steps=1).loss(INPUTS))
        one, two = (done.deltas[-1] for done in spy.step.passes)
        assert torch.equal(one, -two) and one.any()
    assert torch.equal(*losses), "f(d) + f(-d) has no sign"


def consistency(kind, weight, second):
    def reference(naive, d):
        (clean, p, _), (noisy, q, _) = naive.run(), naive.run(d)
        return clean + second * noisy + weight * apart(kind, p, q)

    return reference


@pytest.mark.parametrize("cut_weight", [0.0, 0.7])
@pytest.mark.parametrize("name", ["cutoff_token", "cutoff_span", "cutoff_feature", "hidden_cut"])
def test_cutoff_keeps_the_original_loss(model, name, cut_weight):
    def reference(naive, d):
        kept = {site: (delta == 0).to(naive.table.dtype) for site, delta in d.items()}
        assert all(0 < keep.mean() < 1 for keep in kept.values())
        (clean, p, _), (noisy, q, _) = naive.run(), naive.run(kept=kept)
        return clean + cut_weight * noisy + 3 * apart("js", p, q)

    compare(model.float(), name, reference, ratio=0.4, weight=3, cut_weight=cut_weight)


@pytest.mark.parametrize("what", ["uniform", "gaussian"])
@pytest.mark.parametrize("relative", [False, True])
def test_r3f_adds_the_symmetric_kl(model, what, relative):
    arguments = dict(eps=0.5 if relative else 0.05, weight=3.0, what=what, relative=relative)
    compare(model, "r3f", consistency("symmetric_kl", 3.0, 0.0), **arguments)


@pytest.mark.parametrize("kind", ["kl", "reverse_kl", "symmetric_kl", "js", "hellinger"])
def test_pdr_adds_the_divergence_of_choice(model, kind):
    compare(model, "pdr", consistency(kind, 5.0, 0.0), eps=0.05, weight=5.0, divergence=kind)


@pytest.mark.parametrize("first", [0, 1, 2])
def test_lnsr_sums_the_layers_from_the_first_on(model, first):
    def reference(naive, d):
        assert list(d) == [first] and d[first].any(), "noise enters at the first layer that counts"
        (clean, _, states), (_, _, moved) = naive.run(), naive.run(d)
        total = 0.0
        for layer in range(first, 3):
            for row, document in enumerate(DOCUMENTS):
                for t in range(len(document)):
                    total = total + (states[layer][row, t] - moved[layer][row, t]).square().sum() / 32
        return clean + 0.3 * total / len(naive.places)

    compare(model, "lnsr", reference, size=0.5, weight=0.3, first=first)


@pytest.mark.parametrize("lengths", [(5, 4), (5, 1, 4), (5, 4, 1)])
def test_lnsr_is_the_same_in_every_layout_of_documents_of_one_token(model, lengths):
    documents = [[3 + length + place for place in range(length)] for length in lengths]
    found = []
    longer = [document for document in documents if len(document) > 1]
    for inputs in (padded(documents, prompt=1), packed(documents, prompt=1), padded(longer, prompt=1)):
        losses = []
        for noise in ("none", {"name": "lnsr", "size": 1.0}):
            with attach(model, noise, total_steps=1) as handle:
                losses.append(handle.loss(inputs, step=0).item())
        found.append(losses[1] - losses[0])
    assert found[0] > 0 and found[1:] == pytest.approx([found[0]] * 2, rel=1e-4)


def test_lnsr_begins_at_a_layer_of_the_model(model):
    LayerStability(first=2).check(model)
    with pytest.raises(NoiseError, match="first must be below the model's 3 layers, got 3"):
        LayerStability(first=3).check(model)


def test_r_drop_compares_two_dropout_masks(llama):
    model = llama(attention_dropout=0.3, attn_implementation="eager").double().train()
    state = torch.get_rng_state()
    with attach(model, {"name": "r_drop", "weight": 3.0}, total_steps=1) as handle:
        loss = handle.loss(INPUTS)
    loss.backward()
    got = gradients(model)
    torch.set_rng_state(state)
    naive = Naive(model, INPUTS)
    (one, p, _), (two, q, _) = naive.run(), naive.run()
    expected = (one + two) / 2 + 3.0 / 2 * (apart("kl", p, q) + apart("kl", q, p))
    expected.backward()
    assert one != two and loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert furthest(got, gradients(model)) < 1e-4


def test_r_drop_without_dropout_says_what_to_set(llama):
    with pytest.raises(NoiseError, match="same: set lora_dropout .* or attention_dropout .* got 0 for all"):
        attach(llama().train(), "r_drop", total_steps=1)


def test_dropout_of_lora_or_of_modules_is_enough(llama):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", lora_dropout=0.1)
    attach(get_peft_model(llama(), config).train(), "r_drop", total_steps=1).loss(INPUTS).backward()


def robust(hidden, batch_rows, size, beta, z):
    """NoiseFiT's noise, a token at a time: its median, deviation and variance; the variances' mean is per document."""
    noise = np.zeros(hidden.shape)
    for row, n in enumerate(batch_rows):
        variances = [hidden[row, t].var(ddof=1) for t in range(n)]
        for t in range(n):
            h = hidden[row, t]
            median = np.sort(h)[(len(h) - 1) // 2]  # torch's: the lower of the two in the middle
            mad = np.sort(np.abs(h - median))[(len(h) - 1) // 2]
            weight = np.exp(-beta * np.abs(h - median) / (mad + 1e-6))
            varied = min(5.0, np.exp(variances[t] / (np.mean(variances) + 1e-6)))
            noise[row, t] = size / np.sqrt(len(h)) * mad * weight * varied * z[row, t]
    return noise


def test_noisefit_adds_robust_noise(model):
    strategy = make("noisefit", size=3.0, beta=0.2, layers=[1])
    batch = Batch.from_inputs(INPUTS, key=4)
    hidden = torch.randn(3, 8, 32, generator=torch.Generator().manual_seed(0)).double()
    hidden[:, :, 5] *= 40  # as hidden states of language models have
    z = randomness.normal(batch.stream("what"), 32).double().numpy()
    expected = robust(hidden.numpy(), [len(document) for document in DOCUMENTS], 3.0, 0.2, z)
    delta = strategy.noise(hidden, batch)
    np.testing.assert_allclose(delta.numpy(), expected, rtol=1e-4, atol=1e-7)
    assert delta[..., 5].abs().mean() < delta.abs().mean(), "huge coordinates get less"


def test_noisefit_learns_from_the_clean_pass_as_from_a_constant(model):
    noise = make("noisefit", size=30.0, layers=[0, 2]).noise

    def reference(naive, d):
        batch = Batch.from_inputs(INPUTS, key=step_key(0, 0, 0))
        clean, p, _ = naive.run()
        embeds = naive.table[INPUTS["input_ids"]].detach()
        first = Redrawn(noise.noise)(embeds, batch.at(0)).double()
        states = naive.run({0: first})[2]
        again = {0: first, 2: Redrawn(noise.noise)(states[1].detach(), batch.at(2)).double()}
        lower = {0: d[0], 2: noise(naive.run({0: d[0]})[2][1].detach(), batch.at(2)).double()}
        (_, one, _), (_, two, _) = naive.run(lower), naive.run(again)
        assert not torch.allclose(one, two)
        taught = (apart("kl", p.detach(), one) + apart("kl", p.detach(), two)) / 2
        return 0.6 * clean + 0.4 * taught + 0.7 * apart("kl", two.detach(), one)

    compare(model, "noisefit", reference, size=30.0, layers=[0, 2], share=0.6, consistency=0.7)


def test_a_clean_teacher_needs_noise():
    with pytest.raises(NoiseError, match="a clean teacher needs a noise on embeddings or layers, got None"):
        Strategy(None, CleanTeacher())


SILENT = {
    "r3f": dict(eps=0),
    "pdr": dict(eps=0),
    "lnsr": dict(size=0),
    "cutoff_token": dict(ratio=0, cut_weight=0),
    "cutoff_feature": dict(ratio=0, cut_weight=0),
    "cutoff_span": dict(ratio=0, cut_weight=0),
    "hidden_cut": dict(ratio=0, cut_weight=0),
    "symnoise": dict(alpha=0),
}


@pytest.mark.parametrize("name", SILENT)
def test_without_noise_nothing_but_the_plain_loss_is_left(llama, name):
    """Also with dropout: the clean and the noisy pass share their masks."""
    found = []
    for noise in ("none", {"name": name, **SILENT[name]}):
        model = llama(attention_dropout=0.2).train()
        torch.manual_seed(3)
        loss = attach(model, noise, total_steps=1).loss(INPUTS)
        loss.backward()
        found.append((loss.item(), gradients(model)))
    (plain, reference), (got, grads) = found
    assert got == pytest.approx(plain, rel=1e-7) and furthest(grads, reference) < 1e-6
    if name == "r3f":
        assert got == plain and all(torch.equal(grads[key], reference[key]) for key in reference)


def test_symnoise_on_a_quadratic_is_the_plain_loss_plus_its_curvature():
    model, ids = Quadratic().train(), torch.arange(5, 17).view(2, 6)
    handle = attach(model, "symnoise", total_steps=1)
    loss = handle.loss({"input_ids": ids}, compute=own)
    batch = Batch.from_inputs({"input_ids": ids}, key=step_key(0, 0, 0))
    delta = make("symnoise").noise(model.embed(ids), batch).double().sum(1)
    expected = own(model, {"input_ids": ids}) + ((delta @ model.curve) * delta).sum(-1).mean() / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("objective", [DropoutConsistency, LayerStability, Consistency])
def test_a_consistency_counts_in_full_unless_told_otherwise(objective):
    assert objective() == objective(weight=1.0)


@pytest.mark.parametrize("share", [1e-10, 1e-20, 1e-25, 1e-28])
def test_a_tokens_step_has_its_length_whatever_the_documents_gradient(share):
    batch = Batch.from_inputs({"input_ids": torch.tensor([[5, 6, 7, 8]])})
    gradient = torch.ones(1, 4, 8)
    gradient[0, 2] *= share
    torch.testing.assert_close(Ball(6.0, "token").up(gradient, batch).norm(dim=-1), torch.ones(1, 4))
