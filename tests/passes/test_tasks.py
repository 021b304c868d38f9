"""Models that do not predict the next token: classes, spans, hidden tokens and numbers."""

import pytest
import torch
from selection import NEED_OTHER_MODELS
from small_models import fitting
from tasks import HIDDEN, IDS, MASK, TASKS, model_of
from torch.nn.functional import kl_div
from transformers import LlamaConfig, LlamaForSequenceClassification

from neft_zoo import NoiseError, attach, registry
from neft_zoo.noise import TokenEdit

COMPARE = {
    "noisefit",
    "r_drop",
    "r3f",
    "pdr",
    "smart",
    "vat",
    "hidden_cut",
    "cutoff_feature",
    "cutoff_span",
    "cutoff_token",
}
PER_TOKEN = {"neft_completion", "neft_prompt", "masked_thought"}


def is_refused(name, task):
    if name in {"embed_mix", *NEED_OTHER_MODELS}:
        return True
    if name in COMPARE:  # numbers, two heads at once, and a head that gives every choice a number
        return task in ("regression", "pretraining", "choices")
    if name == "lnsr" and task in ("pretraining", "choices"):  # it counts the tokens that are graded
        return True
    if task == "choices" and isinstance(registry.make(name).noise, TokenEdit):
        return True
    return name in PER_TOKEN and task not in ("tokens", "masked", "pretraining")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", registry.builtin_names())
def test_every_entry_trains_or_is_one_sentence(name, task):
    model, inputs = model_of(task), {"input_ids": IDS, "attention_mask": MASK, **TASKS[task][1]}
    tokenizer = type("Tokenizer", (), {"mask_token_id": 3})()

    def loss():
        settings = {"total_steps": 1, "tokenizer": tokenizer, "token_counts": torch.ones(64).long()}
        torch.manual_seed(1)
        return attach(model, fitting(name), **settings).loss(inputs)

    if is_refused(name, task):
        with pytest.raises(NoiseError):
            loss()
        return
    value = loss()
    value.backward()
    assert value.isfinite() and sum(w.grad.abs().sum() for w in model.parameters() if w.grad is not None) > 0
    torch.manual_seed(1)
    plain = model(**inputs).loss
    assert (value.item() != plain.item()) == (name not in ("none", "noisy_tune", "flat_lora", "mixout", "quant_noise"))


@pytest.mark.parametrize(
    ("task", "places"), [("sequence", None), ("span", None), ("tokens", HIDDEN), ("masked", HIDDEN)]
)
def test_divergences_are_those_of_the_models_own_logits(task, places):
    model, inputs = model_of(task).train(), {"input_ids": IDS, "attention_mask": MASK, **TASKS[task][1]}
    outputs = []
    model.register_forward_hook(lambda module, args, output: outputs.append(output))
    loss = attach(model, {"name": "r3f", "eps": 0.5, "weight": 3.0}, total_steps=1).loss(inputs)
    clean, noisy = outputs

    def log_p(output):
        if task == "span":
            return torch.cat([output.start_logits, output.end_logits]).log_softmax(-1)
        logits = output.logits if places is None else output.logits[places != -100]
        return logits.log_softmax(-1)

    p, q = log_p(clean), log_p(noisy)
    both = [kl_div(a, b, log_target=True, reduction="batchmean") for a, b in ((p, q), (q, p))]
    assert loss.item() == pytest.approx((clean.loss + 3 * sum(both)).item(), rel=1e-5)
    assert sum(both) > 1e-4


def test_several_labels_at_once_have_no_distribution_to_compare():
    model = model_of("sequence")
    model.config.problem_type = "multi_label_classification"
    with pytest.raises(NoiseError, match="chooses one of several classes, got num_labels=3 and problem_type='multi"):
        attach(model, "r3f", total_steps=1)


@pytest.mark.parametrize("length", [8, 10])
@pytest.mark.parametrize("name", sorted(PER_TOKEN))
def test_several_labels_at_once_are_no_labels_of_tokens(tokenizer, name, length):
    """Not even where a sequence has as many tokens as labels, and both tensors the same shape."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=64)
    kind = dict(pad_token_id=0, num_labels=8, problem_type="multi_label_classification")
    model = LlamaForSequenceClassification(LlamaConfig(**sizes, **kind)).train()
    batch = {"input_ids": torch.randint(3, 64, (3, length)), "labels": torch.ones(3, 8)}
    with pytest.raises(NoiseError, match="labels"):
        attach(model, name, total_steps=3, tokenizer=tokenizer).loss(batch)
