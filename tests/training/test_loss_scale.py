"""The scale of what a strategy adds: that of the trainer's own loss, whether or not it uses the step's token count."""

import pytest
import torch
from small_models import with_lora
from torch.nn.functional import cross_entropy
from torch.utils.data import SequentialSampler
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from neft_zoo import enable

SIZES = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
RECORDS = 4
COMPILED = {"torch_compile": True, "torch_compile_backend": "eager"}


class Mean(Trainer):
    """A loss that ignores the count, and says nothing of it."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss


class Counted(Trainer):
    """A loss that divides by the count."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs, labels = model(**inputs), inputs["labels"]
        loss = cross_entropy(outputs.logits, labels, reduction="sum")
        return loss / (len(labels) if num_items_in_batch is None else num_items_in_batch)


CASES = {
    "override": (LlamaForCausalLM, Mean),
    "tokens": (LlamaForTokenClassification, Trainer),
    "classes": (LlamaForSequenceClassification, Trainer),
    "counted classes": (LlamaForSequenceClassification, Counted),
}


def made(kind, **config):
    torch.manual_seed(0)
    return kind(LlamaConfig(**SIZES, pad_token_id=0, num_labels=3, initializer_range=0.2, **config)).train()


def records(kind):
    draws, rows = torch.Generator().manual_seed(1), []
    for _ in range(RECORDS):
        ids = torch.randint(3, 64, (8,), generator=draws)
        labels = {LlamaForCausalLM: ids, LlamaForSequenceClassification: ids[0] % 3}.get(kind, ids % 3)
        rows.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})
    return rows


def collate(rows):
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def gradient(folder, trainer_class, model, kind, parts, noise=None, **settings):
    """Return the gradient of a step of four records in so many micro-batches, as one vector."""
    found = []

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, *arguments, **keywords):
            grads = (weight.grad for weight in model.parameters())
            found.append(torch.cat([grad.flatten() for grad in grads if grad is not None]))

    args = TrainingArguments(
        folder,
        max_steps=1,
        per_device_train_batch_size=RECORDS // parts,
        gradient_accumulation_steps=parts,
        max_grad_norm=0.0,
        learning_rate=0.0,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        **settings,
    )
    trainer = trainer_class(model, args, train_dataset=records(kind), data_collator=collate, callbacks=[Keep()])
    if noise is not None:
        enable(trainer, noise)
    trainer.train()
    return found[0]


@pytest.mark.parametrize(
    ("case", "settings"),
    [*((case, {}) for case in CASES), pytest.param("override", COMPILED, marks=pytest.mark.slow)],
)
def test_accumulation_keeps_the_ratio_of_divergence_and_loss(tmp_path, case, settings):
    kind, trainer_class = CASES[case]

    def ratio(parts):
        plain = gradient(tmp_path, trainer_class, made(kind), kind, parts)
        noise = {"name": "r3f", "eps": 0.1, "weight": 100.0}
        both = gradient(tmp_path, trainer_class, made(kind), kind, parts, noise, **settings)
        return ((both - plain).norm() / plain.norm()).item()

    assert ratio(parts=4) == pytest.approx(ratio(parts=1), rel=1e-4)


def test_stm_takes_the_mean_over_what_it_keeps_of_a_loss_that_ignores_the_count(tmp_path):
    def found(trainer_class):
        model = with_lora(made(LlamaForCausalLM), lora_dropout=0.0)
        noise = {"name": "stm", "threshold": 60.0}
        return gradient(tmp_path, trainer_class, model, LlamaForCausalLM, 1, noise)

    counted, ignored = found(Trainer), found(Mean)
    torch.testing.assert_close(ignored, counted, rtol=1e-4, atol=1e-6)


class Auxiliary(Trainer):
    """A loss that divides by the count, plus a term that does not depend on it; records come in order."""

    def _get_train_sampler(self, *arguments, **keywords):
        return SequentialSampler(self.train_dataset)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs, labels = model(input_ids=inputs["input_ids"]), inputs["labels"][:, 1:]
        loss = cross_entropy(
            outputs.logits[:, :-1].flatten(0, 1), labels.flatten(), reduction="sum", ignore_index=-100
        )
        loss = loss / num_items_in_batch + 0.01 * outputs.logits.square().mean()
        return (loss, outputs) if return_outputs else loss


def test_a_batch_without_a_graded_token_says_nothing_of_the_scale(tmp_path):
    data = records(LlamaForCausalLM)
    data[0]["labels"] = torch.full_like(data[0]["labels"], -100)
    args = TrainingArguments(
        tmp_path,
        max_steps=1,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=RECORDS,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = Auxiliary(made(LlamaForCausalLM), args, train_dataset=data, data_collator=collate)
    handle = enable(trainer, {"name": "r3f", "eps": 0.1})
    trainer.train()
    assert handle.session.history.divides is True
