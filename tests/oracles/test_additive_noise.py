"""Oracles of additive noise, written from the papers; draws are observed from outside (observed_draws.py).

none            the model's own loss
neft_*          NEFTune, arXiv 2310.05914, algorithm 1, and its experiment code's train.py: alpha / sqrt(n d) times
                U(-1, 1), n the sum of the document's attention mask, added as a constant; Gaussian in the ablation;
                signs as in one half of SymNoise, arXiv 2312.01523. Laplace, sphere, prompt, completion and schedule
                have no paper: their pages' formulas.
token_*         no paper: their pages' formulas
dx_laplace      Feyisetan et al., arXiv 1910.08902: density ~ exp(-eta |z|), so a uniform direction and a
                norm ~ Gamma(d, 1/eta)

A Kolmogorov-Smirnov test passes from a p-value of 1e-3 (3.3 sigma); moments may be 4.5 sigma off.
"""

import copy
import math

import numpy as np
import pytest
import torch
from observed_draws import (
    TWO,
    added,
    agree,
    alone,
    likely,
    many,
    per_token,
    run,
    small,
    table_of,
    uncorrelated,
    weights,
)
from scipy import stats

ALPHA = 0.1  # below the rms of these embeddings
MANY = many()
REAL = MANY["attention_mask"].bool()
N_D = 16 * MANY["attention_mask"].sum(1)[:, None, None]
UNIFORM = stats.uniform(-1, 2)
SPREAD = {"neft_uniform": UNIFORM, "neft_gaussian": stats.norm, "neft_laplace": stats.laplace(0, 1 / math.sqrt(2))}
ADDITIVE = {
    **{
        name: {"alpha": ALPHA} for name in [*SPREAD, "neft_bernoulli", "neft_sphere", "neft_prompt", "neft_completion"]
    },
    "neft_scheduled": {"alpha": {"schedule": "linear", "start": 2 * ALPHA, "end": 0}},
    "token_relative": {"rho": 0.3},
    "token_frequency": {"rho": 0.01},
    "token_subspace": {"alpha": ALPHA, "k": 4},
    "dx_laplace": {},
}
COUNTS = torch.arange(64).double().exp2().clamp(max=2**20).long()  # 1, 2, 4 ...: from rare to frequent


def drawn(model, name, inputs=MANY, **settings):
    """Return what was added to the table's rows: (B, L, D), of one step or, if `steps` are given, of each."""
    given = {key: settings.pop(key) for key in ("steps", "token_counts", "seed") if key in settings}
    noise = {"name": name, **ADDITIVE.get(name, {}), **settings}
    noises = [added(seen, model, inputs) for seen in run(model, noise, inputs, backward=False, **given)]
    return noises if "steps" in given else noises[0]


def test_none_is_plain_training_bit_for_bit(llama):
    model = llama()
    twin = copy.deepcopy(model)
    (seen,) = run(model, "none", compute=None)
    loss = twin(**TWO).loss
    loss.backward()
    assert torch.equal(seen.loss, loss)
    assert all(torch.equal(seen.gradients[name], weight.grad) for name, weight in twin.named_parameters())


@pytest.mark.parametrize("name", ADDITIVE)
def test_loss_and_gradients_of_documents_with_the_observed_noise(llama, tokenizer, name):
    model = small(llama)
    before = weights(model)
    (seen,) = run(model, {"name": name, **ADDITIVE[name]}, token_counts=COUNTS, tokenizer=tokenizer)
    noise, real = added(seen, model), TWO["attention_mask"].bool()
    graded = TWO["labels"] != -100
    noised = {"neft_prompt": real & ~graded, "neft_completion": graded}.get(name, real)  # special tokens too
    assert torch.equal((noise != 0).any(-1), noised)
    agree(seen, alone(model, edit=lambda row, clean: clean + noise[row, real[row]]))
    assert all(torch.equal(before[key], value) for key, value in weights(model).items())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ADDITIVE if name != "neft_sphere"])
def test_tokens_features_documents_and_steps_have_draws_of_their_own(llama, name):
    one, other = drawn(small(llama), name, steps=(0, 1), token_counts=COUNTS)
    if name in ("neft_prompt", "neft_completion"):
        half = slice(0, 32) if name == "neft_prompt" else slice(32, 64)
        one, other = one[::2, half], other[::2, half]
    rows = one[::2]
    uncorrelated(rows[0], rows[1])
    uncorrelated(one, other)
    uncorrelated(one[:, 1:], one[:, :-1])
    if name != "token_subspace":  # a projection correlates features
        uncorrelated(one[..., 1:], one[..., :-1])


@pytest.mark.parametrize("name", SPREAD)
def test_neftune_noise_has_the_scale_of_its_document(llama, name):
    z = drawn(small(llama), name) * N_D.sqrt() / ALPHA
    likely(z[REAL], SPREAD[name])
    for row in (0, 1):  # of 64 and of 32 tokens
        likely(z[row, REAL[row]], SPREAD[name])
        assert name != "neft_uniform" or 0.99 < z[row].abs().max() <= 1


@pytest.mark.slow
def test_matched_rms_has_the_energy_of_uniform_noise(llama):
    for name in ("neft_gaussian", "neft_laplace"):
        likely((drawn(small(llama), name, match_rms=True) * (3 * N_D).sqrt() / ALPHA)[REAL], SPREAD[name])
    z = drawn(small(llama), "neft_bernoulli", match_rms=True) * (3 * N_D).sqrt() / ALPHA
    torch.testing.assert_close(z[REAL].abs(), torch.ones_like(z[REAL]), rtol=1e-6, atol=0)


def test_padded_length_is_the_width_of_the_batch(llama):
    z = drawn(small(llama), "neft_uniform", length="padded") * math.sqrt(64 * 16) / ALPHA
    likely(z[REAL], UNIFORM)


def test_bernoulli_noise_is_fair_signs_of_equal_magnitude(llama):
    z = (drawn(small(llama), "neft_bernoulli") * N_D.sqrt() / ALPHA)[REAL]
    torch.testing.assert_close(z.abs(), torch.ones_like(z), rtol=1e-6, atol=0)
    assert abs(z.mean()) < 4.5 / math.sqrt(z.numel())


def test_sphere_noise_has_a_fixed_norm_and_a_uniform_direction(llama):
    noise = drawn(small(llama), "neft_sphere")
    norm = noise.flatten(1).norm(dim=1)
    torch.testing.assert_close(norm, torch.full_like(norm, ALPHA / math.sqrt(3)), rtol=1e-6, atol=0)
    z = noise * N_D.sqrt() * math.sqrt(3) / ALPHA  # a coordinate of 512 or more is nearly normal
    per_token(z[REAL])
    uncorrelated(z[0], z[2])


@pytest.mark.parametrize("name", ["neft_prompt", "neft_completion"])
def test_only_the_prompt_or_the_completion_is_noised(llama, name):
    z = drawn(small(llama), name) * N_D.sqrt() / ALPHA
    noised = REAL & ((MANY["labels"] == -100) == (name == "neft_prompt"))
    assert not z[~noised].any()
    likely(z[noised], UNIFORM)


@pytest.mark.filterwarnings("ignore:.*louder than the embeddings")
def test_schedule_falls_from_10_to_0_with_the_steps(llama):
    noises = drawn(
        small(llama), "neft_scheduled", steps=(0, 5, 9), alpha={"schedule": "linear", "start": 10, "end": 0}
    )
    for step, noise in zip((0, 5, 9), noises, strict=True):
        strength = 10 * (1 - step / 10)
        assert 0.99 * strength < (noise * N_D.sqrt()).abs().max() <= strength * (1 + 1e-6)


def test_relative_noise_is_in_proportion_to_each_tokens_rms(llama):
    model = small(llama)
    table_of(model).data *= torch.logspace(-2, 0, 64)[:, None]
    rms = table_of(model).detach()[MANY["input_ids"]].square().mean(-1, keepdim=True).sqrt()
    per_token((drawn(model, "token_relative") / (0.3 * rms))[REAL])


@pytest.mark.parametrize(
    "exponent", [0.5, pytest.param(0, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.slow)]
)
def test_frequency_noise_is_a_power_of_the_count_with_mean_1_over_the_data(llama, exponent):
    power = COUNTS.double() ** -exponent
    weight = power / ((COUNTS * power).sum() / COUNTS.sum())
    noise = drawn(small(llama), "token_frequency", exponent=exponent, token_counts=COUNTS)
    per_token((noise / (0.01 * weight[MANY["input_ids"]][..., None]))[REAL])


def test_subspace_noise_is_off_or_onto_the_directions_of_most_variance(llama):
    model = small(llama)
    table = table_of(model).detach().numpy()
    axes = np.linalg.eigh(np.cov(table.T))[1][:, -4:]
    off, onto = (drawn(model, "token_subspace", keep=keep)[REAL].numpy() / ALPHA for keep in ("off", "onto"))
    assert np.abs(off @ axes).max() < 1e-6 * np.abs(off).max()
    assert np.abs(onto - onto @ axes @ axes.T).max() < 1e-6 * np.abs(onto).max()
    whole = (off + onto) * N_D.sqrt().expand(-1, 64, 1)[
        REAL
    ].numpy()  # of equal seeds: NEFTune's noise before the projection
    assert np.abs(whole).max() <= 1 + 1e-5
    likely(whole, UNIFORM)


def test_metric_privacy_noise_has_a_gamma_norm_and_a_uniform_direction(llama):
    noise = drawn(small(llama), "dx_laplace", eta=500)[REAL]
    norm = noise.norm(dim=1, keepdim=True)
    likely(norm, stats.gamma(16, scale=1 / 500))
    direction = noise / norm
    for axis in (0, 7, 15):  # a coordinate of the sphere
        likely((1 + direction[:, axis]) / 2, stats.beta(15 / 2, 15 / 2))
    assert stats.chi2.sf(16 * len(direction) * direction.mean(0).square().sum(), 16) > 1e-3
    uncorrelated(norm - norm.mean(), direction[:, :1])
