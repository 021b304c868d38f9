"""NoiseSession: one strategy on one model, for every host."""

import pytest
import torch
import vision
from conftest import fitting

from neft_zoo import NoiseError, SFTTrainer, attach, make
from neft_zoo.evaluation.losses import noise_session
from neft_zoo.evaluation.subject import Subject
from neft_zoo.training.session import NoiseSession

IDS = torch.arange(5, 29).view(4, 6)
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": IDS.clone()}


def hooks(model):
    return [hook for m in model.modules() for hook in (*m._forward_hooks, *m._forward_pre_hooks)]


def test_training_and_evaluation_see_the_same_special_tokens_and_image_placeholders(config):
    processor = vision.processor()
    model = vision.llava(processor.tokenizer)
    settings = dict(args=config(max_length=None), train_dataset=vision.records(), processing_class=processor)
    trainer = SFTTrainer(model, noise="neft_uniform", **settings)
    evaluated = noise_session(Subject(model, processor, {}, trainer, 2), make("neft_uniform").noise)
    loop = attach(model, "neft_uniform", total_steps=1, tokenizer=processor)
    sessions = trainer.session, evaluated, loop.session
    assert all(session.tokens == trainer.session.tokens for session in sessions)
    assert trainer.session.tokens["media_ids"] == [processor.image_token_id] and trainer.session.tokens["special_ids"]
    inputs = next(iter(trainer.get_train_dataloader()))
    images = inputs["input_ids"] == processor.image_token_id
    masks = [session.batch(inputs, key=1).real for session in sessions]
    assert images.any() and not any((mask & images).any() for mask in masks)
    assert all(torch.equal(mask, masks[0]) for mask in masks)


def test_a_strategy_that_adds_nothing_sets_no_hook(llama):
    model = llama().train()
    session = NoiseSession(model, make("none"))
    assert not hooks(model) and not session.active
    loss = session.loss(BATCH, lambda inputs: model(**inputs).loss, key=0)
    assert torch.equal(loss, model(**BATCH).loss)


@pytest.mark.parametrize("name", ["neft_uniform", "symnoise", "masked_thought", "lat", "r3f", "token_frequency"])
def test_a_session_sets_its_hooks_and_takes_all_of_them_off(llama, tokenizer, name):
    model = llama().train()
    counts = torch.ones(len(tokenizer)).long()
    session = NoiseSession(model, make(fitting(name)), tokenizer=tokenizer, token_counts=counts)
    set_once = len(hooks(model))
    session.attach()
    assert len(hooks(model)) == set_once > 0 and session.active
    session.detach()
    session.detach()
    assert not hooks(model)
    session.loss(BATCH, lambda inputs: model(**inputs).loss, key=0, progress=0.5).backward()
    assert len(hooks(model)) == set_once and session.stats.take()
    session.detach()
    assert not hooks(model)


def test_counts_are_counted_only_for_a_noise_that_asks_and_once(llama, tokenizer):
    calls = []

    def count():
        calls.append(1)
        return torch.ones(len(tokenizer)).long()

    session = NoiseSession(llama(), make("neft_uniform"), token_counts=count)
    assert not calls and session.token_counts is None
    session = NoiseSession(llama(), make("token_frequency"), token_counts=count)
    assert torch.equal(session.counts(), session.token_counts) and len(calls) == 1
    with pytest.raises(NoiseError, match="^token_counts must be given"):
        NoiseSession(llama(), make("neft_uniform")).counts()


def test_another_model_gets_the_same_noise_and_the_first_one_is_let_go(llama, tokenizer):
    one, other = llama().train(), llama().train()
    first = NoiseSession(one, make("token_frequency"), token_counts=torch.arange(len(tokenizer)) + 1)
    loss = first.loss(BATCH, lambda inputs: one(**inputs).loss, key=3)
    second = first.on(other)
    assert not hooks(one) and second.stats is first.stats
    assert torch.equal(second.loss(BATCH, lambda inputs: other(**inputs).loss, key=3), loss)


@pytest.mark.parametrize("noise", ["neft_uniform", {"name": "hype", "size": 0.1}, fitting("masked_thought")])
def test_a_noisy_pass_without_gradients(llama, tokenizer, noise):
    model = llama().eval()
    strategy = make(noise)
    with torch.no_grad():
        clean = model(IDS).logits
        for reference, changed in (((), True), (None, False)):
            session = NoiseSession(model, strategy, tokenizer=tokenizer, reference=reference)
            with session.noisy_pass(BATCH, key=1) as inputs:
                logits = model(inputs["input_ids"]).logits
            edits = not torch.equal(inputs["input_ids"], IDS)
            assert torch.equal(logits, clean) != (changed or edits)
            session.detach()
        assert torch.equal(model(IDS).logits, clean)
