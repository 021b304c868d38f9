"""NoiseSession: one strategy on one model, for every host."""

import pytest
import torch
import vision
from naive import Quadratic
from small_models import fitting
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

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
    tokens = trainer.session.batch.tokens
    assert all(session.batch.tokens == tokens for session in sessions)
    assert tokens["media_ids"] == [processor.image_token_id] and tokens["special_ids"]
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
    assert not calls and session.counts.known is None
    session = NoiseSession(llama(), make("token_frequency"), token_counts=count)
    assert torch.equal(session.counts(), session.counts.known) and len(calls) == 1
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


def t5():
    sizes = dict(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=64)
    return T5ForConditionalGeneration(T5Config(**sizes))


def regression():
    sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, vocab_size=64)
    return LlamaForSequenceClassification(LlamaConfig(**sizes, pad_token_id=0, num_labels=1))


def reentrant(llama):
    model = llama()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    return model


def frozen(llama):
    return llama().requires_grad_(False)


# Everything that a model, or its data, may lack: the model, the noise, the counts and what is said.
REFUSED = {
    "no embedding": (lambda llama: torch.nn.Linear(2, 2), "neft_uniform", None, "token embedding"),
    "no embedding, layers": (
        lambda llama: torch.nn.Linear(2, 2),
        {"name": "hype", "size": 1},
        None,
        "token embedding",
    ),
    "two sequences": (lambda llama: t5(), "neft_uniform", None, "encoder-decoder"),
    "no classes": (lambda llama: regression(), "r3f", None, "one of several classes"),
    "no classes, ascent": (lambda llama: regression(), "smart", None, "one of several classes"),
    "no layers": (lambda llama: Quadratic(), {"name": "hype", "size": 1}, None, "list of decoder layers"),
    "no backbone": (lambda llama: Quadratic(), "pdr", None, "a backbone"),
    "no such layer": (lambda llama: llama(), {"name": "lat", "layers": [7]}, None, "layers must lie between"),
    "no such first layer": (lambda llama: llama(), {"name": "lnsr", "first": 9}, None, "first must be below"),
    "no dropout": (lambda llama: llama(attention_dropout=0.0), "r_drop", None, "without dropout"),
    "reentrant": (reentrant, "pgd", None, "use_reentrant must be false"),
    "k too large": (lambda llama: llama(), {"name": "token_subspace", "k": 99}, None, "k must be below"),
    "no counts": (lambda llama: llama(), "token_frequency", None, "needs the counts"),
    "wrong counts": (lambda llama: llama(), "token_frequency", torch.ones(3), "one count for each"),
    "counts of nothing": (lambda llama: llama(), "token_frequency", torch.zeros(4096), "not all 0"),
    "no matrices": (frozen, "noisy_tune", None, "trainable matrices"),
    "no matrices around a step": (frozen, "flat_lora", None, "."),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_set_up_leaves_no_hook(llama, config, records, tokenizer, case):
    build, noise, counts, message = REFUSED[case]
    model = build(llama)
    before, names = hooks(model), set(vars(model))
    with pytest.raises(NoiseError, match=message):
        attach(model, noise, total_steps=1, token_counts=counts)
    assert hooks(model) == before and set(vars(model)) == names
    if not isinstance(model, LlamaForCausalLM) or case in ("no counts", "reentrant"):
        return  # TRL trains no such model; it counts by itself, and switches checkpointing itself
    data = dict(train_dataset=records, processing_class=tokenizer, token_counts=counts)
    with pytest.raises(NoiseError, match=message):
        SFTTrainer(model, args=config(), noise=noise, **data)
    left = [hook for hook in hooks(model) if "neft_zoo" in str(getattr(hook, "__module__", type(hook).__module__))]
    assert not left


def test_a_run_that_ends_in_an_error_of_a_batch_leaves_no_hook(llama, config, records, tokenizer):
    """What only a batch shows is said in step 1, before the optimizer."""
    data = dict(train_dataset=records, processing_class=tokenizer)
    trainer = SFTTrainer(llama(), args=config(), noise="neft_completion", **data)
    trainer.data_collator = lambda rows: {"input_ids": torch.tensor([[1, 2, 3]])}
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    with pytest.raises((NoiseError, KeyError)):
        trainer.train()
    assert not hooks(trainer.model)
    assert all(torch.equal(weight, before[name]) for name, weight in trainer.model.state_dict().items())
