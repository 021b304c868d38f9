"""Noise with a geometry: metric Laplace, by frequency, off or onto a subspace; each against float64 NumPy."""

import numpy as np
import pytest
import torch
from layouts import LAYOUTS, documents, embeddings, lay_out, outside, per_document
from scipy import stats
from small_models import same, weights

from neft_zoo import NoiseError, SFTTrainer, attach, make
from neft_zoo.noise.batch import EMBEDDING
from neft_zoo.noise.data_dependent import Setup
from neft_zoo.passes.hooks import ModelHooks
from neft_zoo.training.token_counts import count_tokens

DOCS = documents(400)
SURE = 1e-6
WIDTH = 16


def added(noise, layout="right", docs=DOCS, width=WIDTH):
    """Return what the noise adds to every document, in one array, and the documents' tokens in the same order."""
    batch, places = lay_out(docs, layout, key=5)
    delta = noise(embeddings(batch, width), batch)
    assert not outside(delta, places).any() and delta.dtype == torch.float32
    return np.concatenate(per_document(delta, places)).astype(np.float64), np.concatenate(docs)


@pytest.mark.parametrize(("eta", "width"), [(20.0, 16), (0.5, 3), (4e3, 200)])
def test_metric_laplace_is_a_uniform_direction_of_gamma_length(eta, width):
    delta, _ = added(make("dx_laplace", eta=eta).noise, width=width)
    length = np.linalg.norm(delta, axis=1)
    assert stats.kstest(length, stats.gamma(width, scale=1 / eta).cdf).pvalue > SURE
    assert length.mean() == pytest.approx(width / eta, rel=5 / np.sqrt(width * len(length)))
    # A squared coordinate of a uniform direction is Beta(1/2, (D-1)/2); its sign is fair, and no two are correlated.
    direction = delta / length[:, None]
    for coordinate in (0, width - 1):
        assert stats.kstest(direction[:, coordinate] ** 2, stats.beta(0.5, (width - 1) / 2).cdf).pvalue > SURE
        assert stats.binomtest(int((direction[:, coordinate] > 0).sum()), len(direction)).pvalue > SURE
    products = direction.T @ direction / len(direction) * width - np.eye(width)
    assert abs(products).max() < 8 / np.sqrt(len(direction))
    assert abs(stats.spearmanr(length, direction[:, 0]).statistic) < 6 / np.sqrt(len(length))


def by_frequency(counts, rho=0.5, exponent=0.5):
    table = torch.zeros(len(counts), WIDTH)
    return make("token_frequency", rho=rho, exponent=exponent).noise.prepare(Setup(table, lambda: counts))


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.3])
def test_noise_by_frequency_is_normal_with_the_stated_weights(exponent):
    counts = np.random.default_rng(0).integers(0, 3000, 4005)
    weight = np.maximum(counts, 1.0) ** -exponent
    weight /= (weight * counts).sum() / counts.sum()  # mean 1 over the training tokens
    for layout in LAYOUTS:
        delta, tokens = added(by_frequency(torch.tensor(counts), exponent=exponent), layout)
        z = delta / (0.5 * weight[tokens])[:, None]
        assert stats.kstest(z.ravel(), stats.norm.cdf).pvalue > SURE


def test_rarer_tokens_get_more():
    counts = torch.tensor([10**6, 1000, 10, 1, 0])
    weight = by_frequency(counts).weights.double().numpy()
    assert (np.diff(weight[:4]) > 0).all() and weight[4] == weight[3]
    np.testing.assert_allclose(weight[1] / weight[0], np.sqrt(1000), rtol=1e-6)
    np.testing.assert_allclose((weight * counts.numpy()).sum() / counts.sum(), 1, rtol=1e-6)


def test_counts_come_from_the_trainers_dataset(llama, config, records, tokenizer):
    trainer = SFTTrainer(
        llama(), args=config(), train_dataset=records, processing_class=tokenizer, noise="token_frequency"
    )
    tokens = np.concatenate([record["input_ids"] for record in trainer.train_dataset])
    counts = np.bincount(tokens, minlength=len(tokenizer))
    given = attach(llama(), "token_frequency", total_steps=1, token_counts=torch.tensor(counts))
    assert torch.equal(trainer.session.noise.weights, given.session.noise.weights)
    assert torch.equal(given.session.noise.weights, by_frequency(counts).weights)
    trainer.train()
    assert all(0.005 < line["noise/rms"] < 0.08 for line in trainer.state.log_history if "loss" in line)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (None, "needs the counts of the training tokens, got none"),
        (torch.ones(7), r"one count for each of \d+ tokens, got \(7,\)"),
        (torch.ones(1), r"one count for each of \d+ tokens, got \(1,\)"),
        (-1, ">= 0, finite and not all 0"),
        (0, ">= 0, finite and not all 0"),
        (float("nan"), ">= 0, finite and not all 0"),
        (float("inf"), ">= 0, finite and not all 0"),
    ],
)
def test_counts_that_cannot_be_are_refused(llama, tokenizer, counts, message):
    if isinstance(counts, int | float):
        counts = torch.full((len(tokenizer),), counts)
    with pytest.raises(NoiseError, match=message):
        attach(llama(), "token_frequency", total_steps=1, token_counts=counts)


def test_an_exponent_beyond_floats_is_refused():
    with pytest.raises(NoiseError, match="exponent must be small enough"):
        by_frequency(torch.full((4005,), 10**6), exponent=100.0)


def test_data_that_cannot_be_counted_are_refused(llama, config, records, tokenizer):
    settings = dict(processing_class=tokenizer, noise="token_frequency")
    with pytest.raises(NoiseError, match="training data without a length, got IterableDataset"):
        SFTTrainer(llama(), args=config(), train_dataset=records.to_iterable_dataset(), **settings)
    with pytest.raises(NoiseError, match="must be token ids from 0 to 49, which the embedding of Llama"):
        SFTTrainer(llama(vocab_size=50), args=config(), train_dataset=records, **settings)


def directions(table, k):
    table = table.detach().double().numpy()
    return np.linalg.svd(table - table.mean(0), full_matrices=False)[2][:k]


def projected(llama, k, keep):
    """Return a table, the noise prepared for it, and the noise before it was projected."""
    table = llama().get_input_embeddings().weight
    noise = make("token_subspace", k=k, keep=keep).noise
    return table, noise.prepare(Setup(table.detach(), None)), noise.noise


@pytest.mark.parametrize("k", [1, 8, 31])
def test_the_noise_is_orthogonal_to_the_principal_directions_or_within_them(llama, k):
    table, off, plain = projected(llama, k, "off")
    onto = projected(llama, k, "onto")[1]
    basis = directions(table, k)
    whole, left, kept = (added(noise, width=32)[0] for noise in (plain, off, onto))
    size = np.linalg.norm(whole, axis=1).max()
    assert abs(left @ basis.T).max() < 1e-6 * size
    assert abs(kept - kept @ basis.T @ basis).max() < 1e-6 * size
    np.testing.assert_allclose(kept, whole @ basis.T @ basis, atol=1e-6 * size)
    np.testing.assert_allclose(left + kept, whole, atol=1e-6 * size)
    assert (left**2).sum() / (whole**2).sum() == pytest.approx(1 - k / 32, abs=0.02)


@pytest.mark.parametrize("keep", ["off", "onto"])
def test_the_projection_is_exact_under_autocast(llama, keep):
    model = llama().train()
    handle = attach(model, {"name": "token_subspace", "k": 8, "keep": keep}, total_steps=1)
    batch, _ = lay_out(documents(4), "right", key=1)
    with torch.autocast("cpu", torch.bfloat16), handle.session.hooks.open(handle.session.noise, batch) as done:
        model(batch.input_ids)
    delta, basis = done.deltas[EMBEDDING], directions(model.get_input_embeddings().weight, 8)
    inside = delta.double().numpy() @ basis.T @ basis
    assert delta.dtype == torch.float32
    assert abs(inside if keep == "off" else delta.double().numpy() - inside).max() < 1e-6


@pytest.mark.parametrize("name", ["token_subspace", "token_frequency"])
def test_a_resumed_run_uses_the_table_that_the_run_began_with(llama, config, records, tokenizer, tmp_path, name):
    noise = {"name": name, "k": 8} if name == "token_subspace" else {"name": name, "rho": 0.5}
    runs = []
    for resume in (None, str(tmp_path / "out" / "checkpoint-2")):
        args = config(save_strategy="steps", save_steps=2)
        trainer = SFTTrainer(llama(), args=args, train_dataset=records, processing_class=tokenizer, noise=noise)
        trainer.train(resume_from_checkpoint=resume)
        runs.append(weights(trainer.model))
    assert same(*runs)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("dx_laplace", {"eta": 0}, "eta must be .*, got 0"),
        ("dx_laplace", {"eta": -3}, "eta must be .*, got -3"),
        ("token_frequency", {"rho": -1}, "rho must be .*, got -1"),
        ("token_frequency", {"exponent": -1}, "exponent must be .*, got -1"),
        ("token_subspace", {"k": 0}, "k must be .* >= 1, got 0"),
        ("token_subspace", {"k": 2.5}, "k must be a whole number, got 2.5"),
        ("token_subspace", {"k": 32}, "k must be below the model's width 32, got 32"),
        ("token_subspace", {"keep": "away"}, "keep must be one of 'off', 'onto', got 'away'"),
    ],
)
def test_numbers_that_mean_nothing_are_refused_before_training(llama, tokenizer, name, arguments, message):
    counts = torch.ones(len(tokenizer))
    with pytest.raises(NoiseError, match=message):
        attach(llama(), {"name": name, **arguments}, total_steps=1, token_counts=counts)


def test_noise_that_was_not_prepared_is_refused(llama):
    batch, _ = lay_out(documents(2), "right")
    for name in ("token_subspace", "token_frequency"):
        with (
            pytest.raises(NoiseError, match=f"{name} must be prepared"),
            ModelHooks(llama()).open(make(name).noise, batch),
        ):
            make(name).noise(embeddings(batch), batch)


class Indexed:
    """A dataset of padded records that is only indexed, without an error at its end."""

    def __init__(self, pad):
        self.pad = pad

    def __len__(self):
        return 3

    def __getitem__(self, place):
        ids = [5 + place % 3, 9, 9, *[0] * self.pad]
        return {"input_ids": ids, "attention_mask": [1, 1, 1, *[0] * self.pad]}


@pytest.mark.parametrize("pad", [0, 56])
def test_padding_is_not_counted(pad):
    counts = count_tokens(Indexed(pad), 12)
    assert counts.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 0, 6, 0, 0]
