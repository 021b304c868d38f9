"""stm: against the base model and the adapter run by hand, one document at a time, in float64."""

import pytest
import torch
from architectures import text
from causal_models import build
from naive import DOCUMENTS, IGNORED, INPUTS, packed, padded
from peft import LoraConfig, get_peft_model
from small_models import with_lora

from neft_zoo import NoiseError, SFTTrainer, attach
from neft_zoo.passes import model_outputs
from neft_zoo.training.session import NoiseSession


def adapted(llama, **config):
    """Return a Llama in float64, in train mode, with LoRA that changes what it predicts."""
    return with_lora(llama(**config), lora_dropout=0.0).double().train()


def log_likelihoods(model, document):
    """Return that of every token of a document but the first."""
    ids = torch.tensor([document])
    return model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]


def by_hand(model, threshold, prompt=2):
    """Return perplexities of all graded tokens under the base model, and the adapter's mean loss over the likely."""
    perplexities, losses = [], []
    for document in DOCUMENTS:
        with torch.no_grad(), model.disable_adapter():
            model.eval()
            found = (-log_likelihoods(model, document)).exp()[prompt - 1 :]
            model.train()
        perplexities += found.tolist()
        own = -log_likelihoods(model, document)[prompt - 1 :]
        losses += [loss for loss, perplexity in zip(own, found, strict=True) if perplexity <= threshold]
    return perplexities, torch.stack(losses).mean() if losses else torch.zeros(())


def taken(model):
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


@pytest.fixture
def threshold(llama):
    """Return a perplexity between those of the tokens, so that some are graded and others are not."""
    found = sorted(by_hand(adapted(llama), 0)[0])
    return (found[len(found) // 2] + found[len(found) // 2 + 1]) / 2


@pytest.mark.parametrize("inputs", [INPUTS, padded(DOCUMENTS, side="left"), packed(DOCUMENTS)])
def test_stm_grades_the_tokens_that_the_starting_model_finds_likely(llama, threshold, inputs):
    model = adapted(llama, attention_dropout=0.0)
    _, expected = by_hand(model, threshold)
    expected.backward()
    gradients = taken(model)
    given = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}
    loss = attach(model, {"name": "stm", "threshold": threshold}, total_steps=1).loss(given)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)  # the model's loss is float32
    ours = taken(model)
    assert ours.keys() == gradients.keys() and any(each.any() for each in ours.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-7)
    assert torch.equal(given["labels"], inputs["labels"]), "the batch was written to"


def test_stm_asks_the_starting_model_without_dropout_and_trains_with_it(llama, threshold):
    model, seen = adapted(llama, attention_dropout=0.5), []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((module.training, kwargs["labels"])), with_kwargs=True
    )
    layer = model.get_base_model().model.layers[0].self_attn
    layer.register_forward_pre_hook(lambda module, args: seen.append(module.training))
    handle = attach(model, {"name": "stm", "threshold": threshold}, total_steps=2)
    handle.loss(INPUTS)
    assert [seen[0][0], seen[1], seen[2][0], seen[3]] == [True, False, True, True]
    kept = (seen[2][1] != IGNORED).sum()
    assert 0 < kept < (INPUTS["labels"] != IGNORED).sum()
    seen.clear()
    handle.loss(INPUTS)
    assert (seen[2][1] != IGNORED).sum() == kept, "dropout chose the tokens"


def test_stm_is_a_mean_over_the_kept_where_the_trainer_divides_by_all(llama, config, tokenizer, records, threshold):
    model = adapted(llama, attention_dropout=0.0)
    trainer = SFTTrainer(model, args=config(max_steps=1), train_dataset=records, processing_class=tokenizer)
    trainer.model.train()
    losses = {}
    for number in (11, 22):
        trainer.session.detach()
        trainer.session = NoiseSession(trainer.model, stm_of(threshold), tokenizer=tokenizer)
        trainer.strategy = trainer.session.strategy
        counted = torch.tensor(number)
        losses[number] = trainer.compute_loss(trainer.model, dict(INPUTS), num_items_in_batch=counted).item()
    _, expected = by_hand(trainer.model, threshold)
    graded = int((INPUTS["labels"] != IGNORED).sum())
    assert losses[11] == pytest.approx(expected.item() * graded / 11, rel=1e-6)
    assert losses[22] == pytest.approx(losses[11] / 2, rel=1e-6)


def stm_of(threshold):
    from neft_zoo import make

    return make("stm", threshold=threshold)


def test_stm_with_no_likely_token_is_a_loss_of_0(llama):
    model = adapted(llama)
    loss = attach(model, {"name": "stm", "threshold": 1.0}, total_steps=1).loss(INPUTS)
    loss.backward()
    assert loss.item() == 0 and not any(gradient.any() for gradient in taken(model).values())


def test_stm_needs_an_adapter(llama):
    with pytest.raises(NoiseError, match=r"token masking needs an adapter \(peft_config\), .* got LlamaForCausalLM"):
        attach(llama(), "stm", total_steps=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(init_lora_weights="pissa"), "init_lora_weights must leave the base as it is .*, got 'pissa'"),
        (dict(init_lora_weights="olora"), "init_lora_weights must leave the base as it is .*, got 'olora'"),
        (
            dict(bias="all"),
            r"of the base must be frozen .* got base_model\S+bias, which trains: set bias to none",
        ),
    ],
)
def test_stm_needs_a_base_that_is_the_starting_model(llama, settings, message):
    """PiSSA and OLoRA take their adapter out of the base, and biases of the base train beside an adapter."""
    model = with_lora(llama(attention_bias=True), **settings)
    with pytest.raises(NoiseError, match=message):
        attach(model, "stm", total_steps=1)


def test_stm_leaves_frozen_what_is_frozen(llama, threshold):
    """PEFT trains every weight of an adapter that it switches on again."""
    model = adapted(llama)
    for name, weight in model.named_parameters():
        weight.requires_grad_("lora_B" in name)
    attach(model, {"name": "stm", "threshold": threshold}, total_steps=1).loss(INPUTS).backward()
    assert all(weight.requires_grad == ("lora_B" in name) for name, weight in model.named_parameters())
    assert all("lora_B" in name for name in taken(model))


@pytest.mark.parametrize("name", ["bart", "modernbert-decoder"])
def test_stm_refuses_a_model_whose_next_token_is_not_the_heads(name):
    """BART expects labels that are already shifted, and ModernBERT transforms its last states before the head."""
    model = get_peft_model(build(name), LoraConfig(target_modules="all-linear", init_lora_weights=False)).train()
    ids = torch.arange(3, 19).view(2, 8)
    with pytest.raises(NoiseError, match=r"losses of single tokens need logits that the LM head makes .* got others"):
        attach(model, "stm", total_steps=1).loss({"input_ids": ids, "labels": ids.clone()})


def test_stm_refuses_a_frozen_adapter_below_the_one_that_trains(llama):
    model = with_lora(llama())
    model.add_adapter("second", LoraConfig(target_modules=["q_proj"]))
    model.base_model.set_adapter(["default", "second"])
    for name, weight in model.named_parameters():
        weight.requires_grad_(".second." in name)
    with pytest.raises(NoiseError, match=r"all active adapters must train .*, got 'default', which is frozen"):
        attach(model, "stm", total_steps=1)
    for name, weight in model.named_parameters():
        weight.requires_grad_("lora_" in name)
    attach(model, "stm", total_steps=1)


def test_stm_refuses_a_routers_loss():
    model = with_lora(build("mixtral"))
    attach(model, "stm", total_steps=1).detach()
    model.config.output_router_logits = True
    with pytest.raises(NoiseError, match=r"output_router_logits must be false with token masking, .* got true"):
        attach(model, "stm", total_steps=1)


@pytest.mark.parametrize("noise", [{"name": "stm", "threshold": 60.0}, "vat"])
def test_a_last_state_of_16_bits_has_logits(monkeypatch, noise):
    """OPT projects its last states, so that autocast leaves them in 16 bits, and the LM head in 32."""
    monkeypatch.setattr(model_outputs, "KEPT_LOGITS", 0)
    model = with_lora(text("opt")).train()

    def compute(model, inputs):
        with torch.autocast("cpu", torch.bfloat16):
            return model(**inputs).loss

    ids = torch.arange(5, 21).view(2, 8)
    loss = attach(model, noise, total_steps=1).loss({"input_ids": ids, "labels": ids.clone()}, compute=compute)
    loss.backward()
    assert loss.isfinite() and any(gradient.any() for gradient in taken(model).values())
