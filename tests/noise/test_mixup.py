"""embed_mix against a naive reference: partners, shares and the mixed loss."""

import numpy as np
import pytest
import torch
from layouts import LAYOUTS, documents, embeddings, lay_out, outside, per_document
from scipy import stats
from selection import quick
from small_models import apart, weights
from torch.nn.functional import cross_entropy

from neft_zoo import NoiseError, SFTTrainer, attach, make
from neft_zoo.noise.batch import Batch, step_key
from neft_zoo.noise.blocks import BLOCK
from neft_zoo.passes.adding import add_drawn

DOCS = documents(30, seed=3, longest=9)


def partners(docs):
    """Return the number of the next document of the same length, in a ring."""
    found = []
    for number, document in enumerate(docs):
        ring = [i for i, other in enumerate(docs) if len(other) == len(document)]
        found.append(ring[(ring.index(number) + 1) % len(ring)])
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_documents_of_equal_length_are_mixed_in_a_ring(layout):
    noise = make("embed_mix", a=0.7).noise
    batch, places = lay_out(DOCS, layout, key=12)
    embeds, share = embeddings(batch), noise.share(batch)
    delta = noise(embeds, batch)
    assert not outside(delta, places).any()
    before, change = (per_document(values.double(), places) for values in (embeds, delta))
    alone = 0
    for number, other in enumerate(partners(DOCS)):
        mixed = share * before[number] + (1 - share) * before[other]
        np.testing.assert_allclose(before[number] + change[number], mixed, atol=1e-6)
        if other == number:
            alone += 1
            assert not change[number].any()
    assert alone < 9


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mixing_block_by_block_is_mixing_the_whole_and_so_are_its_gradients(layout, monkeypatch):
    noise = make("embed_mix", a=0.7).noise
    batch, _ = lay_out(DOCS, layout, key=12)
    embeds = embeddings(batch).requires_grad_()
    weights = torch.randn(embeds.shape)
    whole = embeds + noise(embeds, batch)
    (expected,) = torch.autograd.grad((whole * weights).sum(), embeds)
    monkeypatch.setitem(BLOCK, "cpu", 70)
    parts, norms = add_drawn(embeds, noise, batch)
    (gradient,) = torch.autograd.grad((parts * weights).sum(), embeds)
    assert torch.equal(parts, whole)
    torch.testing.assert_close(norms, (whole - embeds).norm(dim=-1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradient, expected)
    assert not torch.equal(gradient, weights)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_are_the_partners_and_padding_and_first_tokens_have_none(layout):
    batch, places = lay_out(DOCS, layout)
    labels = make("embed_mix").noise.partners_labels(batch)
    assert (outside(labels[..., None], places) == -100).all()
    for place, other in zip(places, partners(DOCS), strict=True):
        half = len(DOCS[other]) // 2
        own = [-100] * half + DOCS[other][half:]
        assert labels.flatten()[place].tolist() == [-100, *own[1:]]


@pytest.mark.parametrize("a", quick([0.2, 1.0, 3.0], 0.2))
def test_the_share_is_the_larger_part_of_a_beta_draw(a):
    noise = make("embed_mix", a=a).noise
    ids = torch.arange(4)[None]
    shares = [noise.share(Batch.from_inputs({"input_ids": ids}, key=step_key(0, 0, step))) for step in range(2000)]
    beta = stats.beta(a, a)
    assert min(shares) >= 0.5
    assert stats.kstest(shares, lambda x: beta.cdf(x) - beta.cdf(1 - np.asarray(x))).pvalue > 1e-6


@pytest.mark.parametrize("layout", ["right", "left"])
def test_the_loss_is_the_mixture_of_both_cross_entropies(llama, layout):
    """A loop over documents with embeddings mixed by hand; no code of the package."""
    model = llama().train()
    docs = [[t % 4000 + 5 for t in d] for d in documents(6, seed=8, shortest=5, longest=7)]
    batch, places = lay_out(docs, layout)
    inputs = dict(input_ids=batch.input_ids, labels=batch.labels, attention_mask=batch.real.long())
    inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    handle = attach(model, {"name": "embed_mix", "a": 2.0}, total_steps=1, seed=5)
    loss = handle.loss(dict(inputs), step=3)
    loss.backward()
    got = [p.grad.clone() for p in model.parameters()]
    share = handle.strategy.noise.share(Batch.from_inputs(inputs, key=step_key(5, 0, 3)))
    assert 0.5 < share < 0.99 and partners(docs) != list(range(6))
    model.zero_grad()
    table, total, graded = model.get_input_embeddings().weight, 0, 0
    for own, other in zip(docs, (docs[i] for i in partners(docs)), strict=True):
        mixed = share * table[own] + (1 - share) * table[other]
        logits = model(inputs_embeds=mixed[None]).logits[0, :-1].double()
        half = len(own) // 2
        for weight, target in ((share, own), (1 - share, other)):
            total = total + weight * cross_entropy(logits[half - 1 :], torch.tensor(target[half:]), reduction="sum")
        graded += len(own) - half
    (total / graded).backward()
    torch.testing.assert_close(loss, (total / graded).float(), atol=1e-5, rtol=1e-5)
    for one, parameter in zip(got, model.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad, atol=1e-5, rtol=1e-4)


def test_without_a_partner_it_is_plain_training(llama):
    model = llama().train()
    batch, _ = lay_out([list(range(5, 5 + n)) for n in (4, 6, 9)], "right")
    inputs = dict(input_ids=batch.input_ids, labels=batch.labels, attention_mask=batch.real.long())
    handle = attach(model, "embed_mix", total_steps=1)
    torch.testing.assert_close(handle.loss(inputs), model(**inputs).loss)


def test_equal_documents_mixed_train_as_they_would_alone(llama, config, records, tokenizer):
    """Both halves of the mixed loss are then the trainer's own, on the trainer's scale."""
    pairs = records.from_list([record for record in records.select(range(8)) for _ in range(2)])
    runs = []
    for noise in ("none", {"name": "embed_mix", "a": 2.0}):
        args = config(train_sampling_strategy="sequential", gradient_accumulation_steps=2, max_steps=2)
        trainer = SFTTrainer(llama(), args=args, train_dataset=pairs, processing_class=tokenizer, noise=noise)
        trainer.train()
        runs.append(weights(trainer.model))
    assert apart(*runs) < 1e-4


@pytest.mark.parametrize("a", [0, -1, float("nan")])
def test_a_must_be_positive(a):
    with pytest.raises(NoiseError, match="a must be"):
        make("embed_mix", a=a)


def test_labels_are_needed(llama):
    with pytest.raises(NoiseError, match="embed_mix needs labels"):
        make("embed_mix").noise.partners_labels(Batch.from_inputs({"input_ids": torch.arange(4)[None]}))
