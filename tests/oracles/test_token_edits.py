"""Oracles of edits of whole tokens or coordinates, written from the papers; draws are observed from outside.

embedding_dropout   e m / (1 - p) by coordinate, as the page says; Gal and Ghahramani, arXiv 1512.05287, drop a word's
                    whole row at all of its places
token_dropout       word dropout, Bowman et al., arXiv 1511.06349, with the page's 0 for their unknown word
masked_thought      Chen et al., arXiv 2403.02178, equation 1, and mask_target_tokens of the authors' README: each
                    target token of the input is replaced with probability p, the labels stay
embed_mix           wordMixup of Guo et al., arXiv 1905.08941: l e_i + (1 - l) e_j, l ~ Beta(a, a),
                    and the losses in the same shares; of l and 1 - l the larger is a document's own (MixText)
"""

import copy

import pytest
import torch
from observed_draws import (
    IGNORED,
    TWO,
    agree,
    alone,
    gradients,
    likely,
    many,
    padded,
    run,
    small,
    table_of,
    trained,
)
from scipy import stats
from torch.nn import functional as F

SINGLE = dict(rtol=1e-4, atol=1e-6)  # a factor is computed in float32, and a norm enlarges its error on a row of 0
LONG = many(16)
LONG["input_ids"][:, 5::8] = 3  # a special token of the tokenizer


def kept(model, noise, inputs=LONG, **given):
    """Return the factor of each coordinate, (B, L, D), of real tokens, and what was seen."""
    (seen,) = run(model, noise, inputs, **given)
    clean = table_of(model).detach()[inputs["input_ids"]]
    factor = torch.where(inputs["attention_mask"][..., None].bool(), seen.read[0][-1] / clean, 1)
    return factor, seen


def share(dropped, p):
    """Check that as many of the booleans are true as of Bernoulli draws, within 4.5 sigma."""
    assert abs(dropped.double().mean() - p) <= 4.5 * (p * (1 - p) / dropped.numel()) ** 0.5


def apart(one, other, p):
    """Check that Bernoulli(p) draws of two places have no correlation, within 4.5 sigma."""
    assert abs(((one.double() - p) * (other.double() - p)).mean()) / (p * (1 - p)) < 4.5 / one.numel() ** 0.5


@pytest.mark.parametrize("p", [pytest.param(0.1, marks=pytest.mark.slow), 0.4])
def test_embedding_dropout_drops_coordinates_and_rescales_the_others(llama, p):
    real = LONG["attention_mask"].bool()
    factor, _ = kept(small(llama), {"name": "embedding_dropout", "p": p}, backward=False)
    mask = factor > 0.5
    torch.testing.assert_close(factor[real], mask[real].double() / (1 - p), rtol=1e-6, atol=1e-6)
    share(~mask[real], p)
    whole = mask[::2]  # documents without padding
    apart(whole[:, 1:], whole[:, :-1], 1 - p)
    apart(whole[..., 1:], whole[..., :-1], 1 - p)
    apart(whole[1:], whole[:-1], 1 - p)


def test_token_dropout_drops_whole_tokens_but_the_first_and_special_ones(llama, tokenizer):
    noise = {"name": "token_dropout", "p": 0.3}
    factor, _ = kept(small(llama).float(), noise, backward=False, tokenizer=tokenizer)
    dropped = (factor == 0).all(-1)
    assert (factor[~dropped] == 1).all()
    may = LONG["attention_mask"].bool() & (LONG["input_ids"] > 3)
    may[:, 0] = False
    assert not dropped[~may].any()
    share(dropped[may], 0.3)
    words = dropped[::2][:, may[::2].all(0)]
    apart(words[1:], words[:-1], 0.3)


@pytest.mark.parametrize("name", ["embedding_dropout", "token_dropout"])
def test_loss_and_gradients_of_documents_with_the_observed_mask(llama, tokenizer, name):
    model, real = small(llama), TWO["attention_mask"].bool()
    factor, seen = kept(model, {"name": name, "p": 0.4}, TWO, tokenizer=tokenizer)
    mask = (factor > 0.5) / (0.6 if name == "embedding_dropout" else 1)
    assert (mask == 0).any()
    agree(seen, alone(model, edit=lambda row, clean: clean * mask[row, real[row]]), SINGLE)


@pytest.mark.parametrize("by", ["mask", "random"])
def test_masked_thought_replaces_graded_inputs_and_keeps_the_labels(llama, tokenizer, by):
    model, answers = small(llama), LONG["labels"] != IGNORED
    (seen,) = run(model, {"name": "masked_thought", "p": 0.4, "by": by}, LONG, tokenizer=tokenizer, backward=False)
    changed = seen.ids[-1] != LONG["input_ids"]
    may = answers & (LONG["input_ids"] > 3)
    assert not changed[~may].any()
    share(changed[may], 0.4)
    if by == "mask":
        assert (seen.ids[-1][changed] == tokenizer.pad_token_id).all()


@pytest.mark.parametrize(
    "step", [0, 10, pytest.param(20, marks=pytest.mark.slow), pytest.param(29, marks=pytest.mark.slow)]
)
def test_masking_warms_up_linearly_over_two_thirds_of_the_steps(llama, tokenizer, step):
    (seen,) = run(small(llama), "masked_thought", LONG, (step,), 30, backward=False, tokenizer=tokenizer)
    may = (LONG["labels"] != IGNORED) & (LONG["input_ids"] > 3)
    share((seen.ids[-1] != LONG["input_ids"])[may], 0.4 * min(step / 20, 1))


@pytest.mark.parametrize("by", ["mask", "random"])
def test_masked_thoughts_loss_and_gradients(llama, tokenizer, by):
    model = small(llama)
    (seen,) = run(model, {"name": "masked_thought", "p": 0.5, "by": by}, tokenizer=tokenizer)
    ids = seen.ids[-1]
    assert (ids != TWO["input_ids"]).any()
    told = {**TWO, "input_ids": ids}
    agree(seen, alone(model, told, targets=TWO["labels"]))


PAIR = padded([list(range(5, 16)), list(range(20, 31)), [40, 41, 42, 43, 44]], prompts=[4, 6, 2])


def own_share(seen, model, inputs=PAIR):
    """Return the share of its own embeddings in what the first of the two equally long documents read."""
    one, other = pair(inputs)
    clean = table_of(model).detach()[inputs["input_ids"]]
    apart = clean[one] - clean[other]
    return ((seen.read[0][-1][one] - clean[other]) * apart).sum() / apart.square().sum()


def pair(inputs):
    """Return the rows of the two documents of 11 tokens."""
    return (inputs["attention_mask"].sum(1) == 11).nonzero().flatten().tolist()


def mixed(model, seen, inputs):
    """Return the loss and gradients of the documents one by one, two of them mixed in the observed shares."""
    twin, lam = copy.deepcopy(model), own_share(seen, model, inputs)
    assert 0.5 < lam < 1
    twin.zero_grad()
    total, partner = torch.zeros(()), dict([pair(inputs), pair(inputs)[::-1]])
    for row, n in enumerate(inputs["attention_mask"].sum(1)):
        words, labels = (inputs[key][:, :n] for key in ("input_ids", "labels"))
        parts = [(lam, row), (1 - lam, partner[row])] if row in partner else [(1.0, row)]
        embedded = torch.stack([part * F.embedding(words[of], table_of(twin)) for part, of in parts]).sum(0)
        torch.testing.assert_close(seen.read[0][-1][row, :n], embedded.detach(), rtol=1e-6, atol=1e-8)
        logits = twin(inputs_embeds=embedded[None]).logits[0, :-1]
        total = total + sum(part * F.cross_entropy(logits, labels[of, 1:], reduction="sum") for part, of in parts)
    loss = total / (inputs["labels"][:, 1:] != IGNORED).sum()
    loss.backward()
    return loss.detach(), gradients(twin)


@pytest.mark.parametrize("compute", [{}, pytest.param({"compute": None}, marks=pytest.mark.slow)])
def test_mixed_embeddings_losses_and_gradients_of_documents_of_equal_length(llama, compute):
    model = small(llama)
    (seen,) = run(model, {"name": "embed_mix", "a": 5}, PAIR, **compute)
    agree(seen, mixed(model, seen, PAIR), dict(rtol=1e-5, atol=1e-6))


def test_the_trainers_one_pass_has_the_mixed_loss_and_gradients(llama, tokenizer, tmp_path):
    model = small(llama)
    twin = copy.deepcopy(model)  # the trainer changes the model's forward pass
    seen, inputs = trained(model, {"name": "embed_mix", "a": 5}, PAIR, tokenizer, tmp_path)
    assert len(seen.read[0]) == 1
    agree(seen, mixed(twin, seen, inputs), dict(rtol=1e-5, atol=1e-6))


@pytest.mark.slow
def test_the_share_is_the_larger_part_of_a_beta_draw(llama):
    model = small(llama)
    seen = run(model, {"name": "embed_mix", "a": 2}, PAIR, range(300), 300, backward=False)
    shares = torch.stack([own_share(one, model) for one in seen])
    likely(stats.beta(2, 2).cdf(shares) * 2 - 1, stats.uniform)
