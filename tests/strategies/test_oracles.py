"""Each entry against its formula, written naively in float64 NumPy, document by document."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from neft_zoo import make, registry
from neft_zoo.noise.batch import Batch
from neft_zoo.noise.distributions import Uniform
from neft_zoo.noise.schedules import Linear

LENGTHS = [3, 9, 1, 5]
WIDTH = 16
ALPHA = 7.0


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    ids = torch.zeros(4, 9, dtype=torch.long)
    mask = torch.zeros(4, 9, dtype=torch.long)
    for row, n in enumerate(LENGTHS):
        ids[row, :n] = torch.randint(1, 99, (n,), generator=generator)
        mask[row, :n] = 1
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :2] = -100
    return Batch.from_inputs({"input_ids": ids, "attention_mask": mask, "labels": labels}, key=11, progress=0.3)


@pytest.fixture
def embeds():
    return torch.randn(4, 9, WIDTH, generator=torch.Generator().manual_seed(1))


def delta_of(noise, embeds, batch):
    return noise(embeds, batch).double().numpy()


def expected(z, size, chosen=lambda t: True):
    """delta[row, t] = size(n) * z where t is a real and chosen token, 0 elsewhere."""
    delta = np.zeros(z.shape)
    for row, n in enumerate(LENGTHS):
        for t in range(n):
            if chosen(t):
                delta[row, t] = size(n) * z[row, t]
    return delta


def by_length(alpha):
    return lambda n: alpha / np.sqrt(n * WIDTH)


CASES = {
    "neft_uniform": ({}, by_length(ALPHA), lambda t: True),
    "neft_gaussian": ({}, by_length(ALPHA), lambda t: True),
    "neft_bernoulli": ({}, by_length(ALPHA), lambda t: True),
    "neft_laplace": ({}, by_length(ALPHA), lambda t: True),
    "neft_prompt": ({}, by_length(ALPHA), lambda t: t < 2),
    "neft_completion": ({}, by_length(ALPHA), lambda t: t >= 2),
    "symnoise": ({}, by_length(ALPHA), lambda t: True),
}


@pytest.mark.parametrize("name", CASES)
def test_additive_entries_equal_their_formula(name, embeds, batch):
    arguments, size, chosen = CASES[name]
    noise = make(name, alpha=ALPHA, **arguments).noise
    z = noise.what(batch, WIDTH).double().numpy()
    np.testing.assert_allclose(delta_of(noise, embeds, batch), expected(z, size, chosen), rtol=1e-6)


@pytest.mark.parametrize("name", ["neft_gaussian", "neft_bernoulli", "neft_laplace"])
def test_matched_rms_is_the_uniform_ones_energy(name, embeds, batch):
    full, matched = (delta_of(make(name, match_rms=flag).noise, embeds, batch) for flag in (False, True))
    np.testing.assert_allclose(matched * np.sqrt(3), full, rtol=1e-6)


def test_padded_length_is_the_width_of_the_batch(embeds, batch):
    noise = make("neft_uniform", alpha=ALPHA, length="padded").noise
    z = noise.what(batch, WIDTH).double().numpy()
    np.testing.assert_allclose(delta_of(noise, embeds, batch), expected(z, lambda n: by_length(ALPHA)(9)), rtol=1e-6)


def test_scheduled_alpha_follows_progress(embeds, batch):
    noise = make("neft_scheduled").noise
    z = Uniform()(batch, WIDTH).double().numpy()
    np.testing.assert_allclose(delta_of(noise, embeds, batch), expected(z, by_length(10 * (1 - 0.3))), rtol=1e-6)
    assert make("neft_scheduled").arguments["alpha"] == Linear(10.0, 0.0)


def test_sphere_has_the_same_norm_for_every_document(embeds, batch):
    delta = delta_of(make("neft_sphere", alpha=ALPHA).noise, embeds, batch)
    for row, n in enumerate(LENGTHS):
        assert np.linalg.norm(delta[row]) == pytest.approx(ALPHA / np.sqrt(3), rel=1e-6)
        assert not delta[row, n:].any()


def test_sphere_directions_are_uniform():
    """A coordinate of a random unit vector in N dimensions has variance 1/N and no preferred sign."""
    documents = torch.arange(4000).view(1000, 4)
    batch = Batch.from_inputs({"input_ids": documents})
    delta = make("neft_sphere", alpha=np.sqrt(3)).noise(torch.zeros(1000, 4, 8), batch).view(1000, 32)
    assert (delta.mean(0).abs() < 6 / np.sqrt(1000 * 32)).all()
    assert ((delta.square().mean(0) * 32 - 1).abs() < 6 * np.sqrt(2 / 1000)).all()
    # A direction's square is shared out among its parts by a Dirichlet distribution: one part's share is a Beta draw.
    shares = delta.view(1000, 4, 8).square().sum(-1).numpy()
    assert all(stats.kstest(shares[:, token], stats.beta(4, 12).cdf).pvalue > 1e-4 for token in range(4))
    assert stats.kstest(delta.square().numpy()[:, 5], stats.beta(0.5, 15.5).cdf).pvalue > 1e-4


def test_token_relative_is_in_proportion_to_every_token(embeds, batch):
    scaled = embeds * torch.linspace(0.01, 100, 9)[:, None]
    noise = make("token_relative", rho=0.2).noise
    z = noise.what(batch, WIDTH).double().numpy()
    rms = np.sqrt((scaled.double().numpy() ** 2).mean(-1, keepdims=True))
    np.testing.assert_allclose(delta_of(noise, scaled, batch), expected(z * rms, lambda n: 0.2), rtol=1e-5)


def test_token_vat_starts_from_one_draw_per_token():
    """U(-1, 1) at NEFTune's scale, equal for equal tokens wherever they stand."""
    ids = torch.randint(1, 200, (40, 12), generator=torch.Generator().manual_seed(0))
    batch = Batch.from_inputs({"input_ids": ids}, key=5)
    delta = delta_of(make("token_vat", alpha=ALPHA).noise, torch.zeros(40, 12, WIDTH), batch)
    z = (delta / by_length(ALPHA)(12)).reshape(-1, WIDTH)
    tokens = ids.flatten().numpy()
    drawn = np.array([z[tokens == token][0] for token in np.unique(tokens)])
    np.testing.assert_array_equal(z, drawn[np.searchsorted(np.unique(tokens), tokens)])
    assert len(np.unique(drawn, axis=0)) == len(drawn)
    assert stats.kstest(drawn.ravel(), stats.uniform(-1, 2).cdf).pvalue > 1e-6
    other = Batch.from_inputs({"input_ids": ids}, key=6)
    assert not np.array_equal(delta, delta_of(make("token_vat", alpha=ALPHA).noise, torch.zeros(40, 12, WIDTH), other))


def test_the_log_names_a_test_for_every_entry():
    """And says rightly whether the entry's page has a paragraph on how it differs from its paper."""
    tests = Path(__file__).parents[1]
    log = (tests.parent / "docs" / "log.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| `([\w/]+\.py)::(\w+)` \| (yes|no) \|$", log, re.MULTILINE)
    listed = [(name, differs) for names, _, _, differs in rows for name in re.findall(r"\w+", names)]
    wrong = {name for name, _ in listed} ^ set(registry.builtin_names())
    assert not wrong, f"the table of entries and tests in docs/log.md needs a row for, or has one too many: {wrong}"
    assert len(listed) == len(registry.builtin_names()), "an entry stands twice in the table of docs/log.md"
    for name, differs in listed:
        assert (differs == "yes") == ("Differs from the paper in" in (registry.entry(name).build.__doc__ or "")), name
    for _, file, test, _ in rows:
        assert f"\ndef {test}(" in (tests / file).read_text(encoding="utf-8"), test
