"""masked_thought: graded tokens are hidden from the input, never from the loss."""

import numpy as np
import pytest
import torch
from layouts import LAYOUTS, documents, lay_out
from scipy import stats
from small_models import same, weights

from neft_zoo import NoiseError, SFTTrainer, attach, make

DOCS = documents(400, seed=1)
SPECIAL = tuple(range(100, 1000))
FILL = 3


def hide(layout="right", docs=DOCS, progress=1.0, **arguments):
    """Return the ids before and after of every document, and the batch."""
    batch, places = lay_out(docs, layout, key=9, progress=progress, special_ids=SPECIAL, fill_id=FILL)
    after = make("masked_thought", **arguments).noise.edit(batch)
    rest = torch.ones(after.numel(), dtype=torch.bool)
    rest[torch.cat(places)] = False
    assert torch.equal(after.flatten()[rest], batch.input_ids.flatten()[rest]), "padding stays"
    return [after.flatten()[place].tolist() for place in places]


def hidable(document):
    """Graded, that is in the second half, not a special token and not the first of the document."""
    return [t for t in range(max(1, len(document) // 2), len(document)) if document[t] not in SPECIAL]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_graded_tokens_alone_are_replaced_with_probability_p(layout):
    hits = trials = 0
    for before, after in zip(DOCS, hide(layout, p=0.4), strict=True):
        hidden = [t for t, token in enumerate(after) if token != before[t]]
        assert set(hidden) <= set(hidable(before)) and all(after[t] == FILL for t in hidden)
        hits, trials = hits + len(hidden), trials + len(hidable(before))
    assert stats.binomtest(hits, trials, 0.4).pvalue > 1e-6


def test_a_document_is_hidden_alike_in_every_layout():
    docs = DOCS[:12]
    alone = [hide(docs=[d], by="random")[0] for d in docs]
    assert alone != docs
    for layout in LAYOUTS:
        assert hide(layout, docs, by="random") == alone


def test_p_warms_up_over_two_thirds_of_training():
    shares = {}
    for progress in (0.0, 1 / 3, 2 / 3, 1.0):
        after = hide(progress=progress)
        shares[progress] = sum(
            a != b for one, two in zip(DOCS, after, strict=True) for a, b in zip(one, two, strict=True)
        )
    trials = sum(len(hidable(d)) for d in DOCS)
    assert shares.pop(0.0) == 0
    for progress, p in zip(shares, (0.2, 0.4, 0.4), strict=True):
        assert stats.binomtest(shares[progress], trials, p).pvalue > 1e-6


def test_random_puts_another_token_of_the_document():
    """Every id occurs once in its document, so a token that stays was not chosen, and each place can be told."""
    docs = [list(range(1000 * i + 1000, 1000 * i + 1008)) for i in range(3000)]
    places = []
    for before, after in zip(docs, hide(docs=docs, p=1.0, by="random"), strict=True):
        assert after[:4] == before[:4] and set(after) <= set(before)
        assert all(a != b for a, b in zip(after[4:], before[4:], strict=True)), "p = 1 leaves none as it was"
        places.append(before.index(after[5]))
    counts = np.bincount(places, minlength=8)
    assert counts[5] == 0 and stats.chisquare(np.delete(counts, 5)).pvalue > 1e-6


def test_the_loss_is_that_of_the_clean_labels_on_the_edited_ids(llama):
    model = llama().train()
    batch, _ = lay_out(documents(4, shortest=6), "right")
    inputs = dict(input_ids=batch.input_ids % 4000, labels=batch.labels % 4000, attention_mask=batch.real.long())
    inputs["labels"] = torch.where(batch.labels < 0, -100, inputs["input_ids"])
    kept = {name: value.clone() for name, value in inputs.items()}
    calls = []
    model.register_forward_pre_hook(lambda _, args, kwargs: calls.append(kwargs), with_kwargs=True)
    handle = attach(model, {"name": "masked_thought", "p": 0.9, "by": "random"}, total_steps=1)
    loss = handle.loss(inputs)
    assert torch.equal(calls[0]["labels"], kept["labels"]) and not torch.equal(
        calls[0]["input_ids"], kept["input_ids"]
    )
    assert all(torch.equal(inputs[name], kept[name]) for name in kept), "the batch itself is not written to"
    assert torch.equal(loss, model(**{**inputs, "input_ids": calls[0]["input_ids"]}).loss)


def test_it_trains_through_trl_with_the_padding_token(llama, config, records, tokenizer):
    settings = dict(train_dataset=records, processing_class=tokenizer)
    runs = {}
    for p in (0.0, 0.9):
        trainer = SFTTrainer(llama(), args=config(), noise={"name": "masked_thought", "p": p}, **settings)
        trainer.train()
        runs[p] = weights(trainer.model)
        assert trainer.state.log_history[0]["noise/p"] == pytest.approx(p)
    plain = SFTTrainer(llama(), args=config(), **settings)
    plain.train()
    assert same(runs[0.0], weights(plain.model)) and not same(runs[0.9], runs[0.0])


def test_what_it_cannot_do_is_said(llama):
    with pytest.raises(NoiseError, match="by must be one of 'mask', 'random', got 'pad'"):
        make("masked_thought", by="pad")
    ids = torch.arange(5, 11)[None]
    with pytest.raises(NoiseError, match="needs labels in the batch"):
        attach(llama().train(), "masked_thought", total_steps=1).loss({"input_ids": ids})
    with pytest.raises(NoiseError, match="needs a tokenizer with a mask or a padding token"):
        attach(llama().train(), "masked_thought", total_steps=1).loss({"input_ids": ids, "labels": ids})
