"""Entries that take away, checked by what is left of every document."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from layouts import LAYOUTS, documents, embeddings, lay_out, outside, per_document
from scipy import stats
from transformers import AddedToken

from neft_zoo import NoiseError, make
from neft_zoo.noise.additive import AtLayers
from neft_zoo.passes.hooks import ModelHooks
from neft_zoo.passes.special_tokens import special_token_ids

DOCS = documents(400)
SPECIAL = (7, 8, 9, *range(100, 1000))
TOKEN = ("token_dropout", "cutoff_token")
SPAN = ("cutoff_span", "hidden_cut")
ALL = ("embedding_dropout", *TOKEN, *SPAN, "cutoff_feature")
STRENGTHS = {name: "p" if name.endswith("dropout") else "ratio" for name in ALL}
SURE = 1e-6


def inner(name, strength):
    """Return the noise of an entry without the layers it acts on."""
    noise = make(name, **{STRENGTHS[name]: strength}).noise
    return noise.noise if isinstance(noise, AtLayers) else noise


def cut(name, strength, layout="right", docs=DOCS, **settings):
    """Return every document's embeddings before and after, and the delta on padding."""
    noise = inner(name, strength)
    batch, places = lay_out(docs, layout, key=3, special_ids=SPECIAL, **settings)
    embeds = embeddings(batch)
    delta = noise(embeds, batch)
    return per_document(embeds, places), per_document(embeds + delta, places), outside(delta, places)


def likely(hits, trials, p):
    return stats.binomtest(int(hits), int(trials), p).pvalue > SURE


def test_embedding_dropout_is_bernoulli_with_inverted_scaling():
    before, after, _ = (np.concatenate(part) for part in (*cut("embedding_dropout", 0.3)[:2], [[]]))
    kept = after != 0
    np.testing.assert_allclose(after, np.where(kept, before.astype(np.float64) / 0.7, 0), rtol=1e-6)
    assert likely(kept.sum(), kept.size, 0.7)
    for one, other in ((kept[:, :-1], kept[:, 1:]), (kept[:-1], kept[1:])):
        assert likely((one & other).sum(), one.size, 0.49), "coordinates are drawn one by one"


def test_the_gradient_passes_the_coordinates_that_are_kept():
    batch, _ = lay_out(DOCS, "right", key=3)
    embeds = embeddings(batch).requires_grad_()
    after = embeds + make("embedding_dropout", p=0.3).noise(embeds, batch)
    after.sum().backward()
    kept = (after != 0) & batch.real[..., None]
    torch.testing.assert_close(embeds.grad[batch.real], (kept / 0.7)[batch.real])


@pytest.mark.parametrize("name", TOKEN)
def test_token_cuts_take_whole_tokens_and_spare_first_and_special_ones(name):
    before, after, _ = cut(name, 0.4)
    dropped = trials = 0
    for document, old, new in zip(DOCS, before, after, strict=True):
        gone = (new == 0).all(1)
        np.testing.assert_array_equal(new[~gone], old[~gone])
        free = np.array([t > 0 and token not in SPECIAL for t, token in enumerate(document)])
        assert not gone[~free].any()
        dropped, trials = dropped + gone[free].sum(), trials + free.sum()
    assert likely(dropped, trials, 0.4)


def test_markers_of_a_chat_template_are_special(tokenizer):
    tokenizer = deepcopy(tokenizer)
    tokenizer.add_tokens([AddedToken("<|header|>", special=True), AddedToken("<plain>", special=False)])
    marker, plain = tokenizer.convert_tokens_to_ids(["<|header|>", "<plain>"])
    assert marker not in tokenizer.all_special_ids, "it has no role"
    special = special_token_ids(tokenizer)["special_ids"]
    assert marker in special and plain not in special and set(tokenizer.all_special_ids) < set(special)
    assert special_token_ids(None) == {"special_ids": [], "fill_id": None, "pad_id": None, "media_ids": []}


@pytest.mark.parametrize("name", SPAN)
@pytest.mark.parametrize("ratio", [0.1, 0.35])
def test_span_cuts_take_one_span_of_the_stated_share(name, ratio):
    for old, new in zip(*cut(name, ratio)[:2], strict=True):
        gone = np.flatnonzero((new == 0).all(1))
        assert len(gone) == round(ratio * len(old))
        assert len(gone) == 0 or gone[-1] - gone[0] == len(gone) - 1
        kept = np.setdiff1d(np.arange(len(old)), gone)
        np.testing.assert_array_equal(new[kept], old[kept])


def test_spans_begin_anywhere_alike():
    docs = [d + [1] * (10 - len(d)) for d in documents(3000, longest=9)]
    begins = [np.flatnonzero((new == 0).all(1))[0] for new in cut("cutoff_span", 0.3, docs=docs)[1]]
    assert stats.chisquare(np.bincount(begins, minlength=8)).pvalue > SURE and max(begins) == 7


def test_feature_cuts_take_the_same_features_in_all_tokens_of_a_document():
    before, after, _ = cut("cutoff_feature", 0.25)
    gone = [(new == 0).all(0) for new in after]
    for old, new, features in zip(before, after, gone, strict=True):
        np.testing.assert_array_equal(new, np.where(features, 0, old))
    gone = np.array(gone)
    assert likely(gone.sum(), gone.size, 0.25)
    assert likely((gone[:-1] & gone[1:]).sum(), gone[1:].size, 0.0625), "other documents lose other features"


@pytest.mark.parametrize("name", ALL)
def test_a_cut_is_that_of_the_document_alone_in_every_layout(name):
    docs = documents(12, seed=5, shortest=2)
    expected = [cut(name, 0.4, docs=[d])[1][0] for d in docs]
    assert any((new == 0).any() for new in expected)
    for layout in LAYOUTS:
        _, after, padding = cut(name, 0.4, layout, docs)
        assert not padding.any()
        for new, alone in zip(after, expected, strict=True):
            np.testing.assert_array_equal(new, alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_hidden_cut_clears_the_input_of_its_layer_to_exactly_0(llama, dtype):
    model = llama(num_hidden_layers=3).to(dtype).train()
    seen = {}
    tap = ModelHooks(model, layers=True)
    for index, layer in enumerate(model.model.layers):
        layer.register_forward_pre_hook(lambda _, args, index=index: seen.update({index: args[0]}))
    batch, places = lay_out(documents(6, seed=2, shortest=8), "right", key=1)
    with tap.open(make("hidden_cut", ratio=0.3).noise, batch):
        model(batch.input_ids, attention_mask=batch.real.long())
    assert not any((seen[index] == 0).all(-1).any() for index in (0, 1))
    for document, place in zip(per_document(seen[2].float(), places), places, strict=True):
        assert (document == 0).all(1).sum() == round(0.3 * len(place))


REFUSED = [(name, argument, value) for name, argument in STRENGTHS.items() for value in (1.0, -0.1, 1.5)]
REFUSED += [("masked_thought", "p", -0.1), ("masked_thought", "p", 1.5)]
REFUSED += [(name, "cut_weight", -1.0) for name in ("cutoff_token", "cutoff_feature", *SPAN)]


@pytest.mark.parametrize(("name", "argument", "value"), REFUSED)
def test_a_number_out_of_bounds_is_refused(name, argument, value):
    with pytest.raises(NoiseError, match=f"^{name}: {argument} must be .*, got {value}"):
        make(name, **{argument: value})


@pytest.mark.parametrize(("name", "argument"), STRENGTHS.items())
def test_a_schedule_out_of_bounds_is_refused(name, argument):
    with pytest.raises(NoiseError, match=f"^{name}: {argument} at progress 0.5 must be .*, got 1.0"):
        make(name, **{argument: {"schedule": "linear", "start": 0, "end": 2}})
