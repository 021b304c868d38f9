"""What a loss of one's own is given, returns, draws and differentiates, whichever strategy runs it."""

import copy
import random
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from selection import NEED_OTHER_MODELS, one_of_each_kind, quick
from short_run import short_run
from small_models import apart, fitting, weights
from transformers import Trainer as HFTrainer
from transformers import TrainingArguments

import neft_zoo
from neft_zoo import NoiseCallback, NoiseError, Trainer, attach, make
from neft_zoo.noise import TokenEdit

IDS = torch.arange(5, 41).view(4, 9)
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": IDS.clone()}
NAMES = [name for name in neft_zoo.names() if not make(name).clean and name not in NEED_OTHER_MODELS]
# What edits token ids or labels must be given them.
NAMELESS = [n for n in NAMES if not isinstance(make(n).noise, TokenEdit) and n not in ("embed_mix", "noisefit")]
SEVERAL = one_of_each_kind(name for name in NAMES if make(name).objective.passes > 1)
ONCE = ["neft_uniform", "hype", "neft_completion"]


def attached(model, name):
    tokenizer = SimpleNamespace(mask_token_id=3)
    counts = torch.ones(model.config.vocab_size).long()
    return attach(model, fitting(name), total_steps=4, tokenizer=tokenizer, token_counts=counts)


def gradients(model):
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


CONTAINERS = {
    "tuple": (tuple, lambda batch: batch),
    "list": (list, lambda batch: batch),
    "object": (lambda values: SimpleNamespace(values=list(values)), lambda batch: batch.values),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    quick(
        product(one_of_each_kind(NAMELESS), CONTAINERS),
        *(("symnoise", kind) for kind in CONTAINERS),
        *((name, "tuple") for name in ("hype", "freelb", "r_drop", "sam")),
    ),
)
def test_a_batch_need_not_be_a_mapping(llama, name, kind):
    pack, unpack = CONTAINERS[kind]
    settings = {"attention_dropout": 0.1} if name == "r_drop" else {}

    def own(model, batch):
        return model(**dict(zip(BATCH, unpack(batch), strict=True))).loss

    found = []
    for batch, compute in ((BATCH, lambda model, batch: model(**batch).loss), (pack(BATCH.values()), own)):
        model = llama(**settings).train()
        torch.manual_seed(1)
        attached(model, name).loss(batch, step=0, compute=compute).backward()
        found.append(gradients(model))
    assert apart(*found) < 1e-6


@pytest.mark.parametrize("batch", [tuple(BATCH.values()), IDS, [*BATCH.items()]])
def test_a_batch_without_names_needs_a_loss_of_its_own(llama, batch):
    handle = attached(llama().train(), "neft_uniform")
    with pytest.raises(NoiseError, match=rf"arguments by name, or pass compute=, got {type(batch).__name__}\."):
        handle.loss(batch)
    edits = attached(llama().train(), "masked_thought")
    with pytest.raises(NoiseError, match=r"masked_thought edits token ids, so a batch must have input_ids"):
        edits.loss(batch, compute=lambda model, batch: model(IDS).logits.mean())


@pytest.mark.parametrize("ids", [IDS[0], IDS.to("meta")])
def test_token_ids_of_no_batch_are_named(llama, ids):
    batch = {name: ids for name in BATCH}
    with pytest.raises(NoiseError, match=r"input_ids must be token ids of shape \(B, L\), got"):
        attached(llama().train(), "neft_uniform").loss(batch)


OUTPUTS = {
    "a mapping": lambda output: {"logits": output.logits, "loss": output.loss},
    "a tuple": lambda output: (output.loss, output.logits),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_a_model_may_return_its_loss_in_any_container(llama, kind):
    found = []
    for change in (lambda output: output, OUTPUTS[kind]):
        model = llama().train()
        model.register_forward_hook(lambda module, args, output, change=change: change(output))
        attached(model, "symnoise").loss(BATCH, step=0).backward()
        found.append(gradients(model))
    assert apart(*found) == 0


NO_LOSS = {
    "NoneType": lambda output: None,
    "float": lambda output: output.loss.item(),
    "tuple": lambda output: (output.loss, output.logits),
    "CausalLMOutputWithPast": lambda output: output,
    r"shape \(4, 9\)": lambda output: output.logits.mean(-1),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    quick(
        product(SEVERAL, NO_LOSS),
        *(("symnoise", kind) for kind in NO_LOSS),
        *((name, "float") for name in ("freelb", "r_drop", "sam")),
    ),
)
def test_what_is_no_loss_is_named(llama, name, kind):
    model = llama(attention_dropout=0.1).train()
    with pytest.raises(NoiseError, match=f"the loss must be a tensor of one number with {name}, .* got {kind}"):
        attached(model, name).loss(BATCH, compute=lambda model, batch: NO_LOSS[kind](model(**batch)))
    assert not gradients(model)


class Drawing(HFTrainer):
    """Draws from the random states that are not torch's."""

    drawn: list

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        self.drawn.append((random.random(), float(np.random.rand())))
        return model(**inputs, num_items_in_batch=num_items_in_batch).loss


class Auxiliary(HFTrainer):
    """Backpropagates a part of its loss by itself."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = model(**inputs, num_items_in_batch=num_items_in_batch).loss
        (0.5 * loss).backward(retain_graph=True)
        return loss


def trained(cls, model, folder, noise=None, **settings):
    """Return a trainer after three steps, its own loss in front of ours where it has one."""
    args = TrainingArguments(**{**short_run(folder), "max_steps": 3, "optim": "sgd", "max_grad_norm": 0, **settings})
    rows = [{"input_ids": row.tolist(), "labels": row.tolist()} for row in torch.arange(5, 113).view(12, 9)]
    own = {"compute_loss": cls.compute_loss} if cls is not HFTrainer else {}
    kind = cls if noise is None else type("Own", (Trainer,), own)
    trainer = kind(model, args, train_dataset=rows, **({} if noise is None else {"noise": noise}))
    trainer.drawn = []
    random.seed(1)
    np.random.seed(1)
    trainer.train()
    return trainer


@pytest.mark.parametrize("name", ["neft_uniform", "symnoise", "freelb"])
def test_the_passes_of_a_step_draw_alike_and_no_more_than_one(llama, tmp_path, name):
    plain = trained(Drawing, llama(), tmp_path).drawn
    drawn = trained(Drawing, llama(), tmp_path, noise=fitting(name)).drawn
    assert list(dict.fromkeys(drawn)) == plain and len(drawn) > len(plain)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("name", ONCE)
def test_a_part_that_the_loss_backpropagates_by_itself_counts_once(llama, tmp_path, name, parts):
    settings = dict(per_device_train_batch_size=4 // parts, gradient_accumulation_steps=parts)
    own = trained(Auxiliary, llama(), tmp_path, noise=fitting(name), learning_rate=0.01, **settings)
    whole = trained(HFTrainer, llama(), tmp_path, noise=fitting(name), learning_rate=0.015, **settings)
    assert apart(weights(own.model), weights(whole.model)) < 1e-6
    assert apart(weights(own.model), weights(llama())) > 1e-4


@pytest.mark.parametrize("name", quick(SEVERAL, "symnoise", "freelb", "r_drop", "sam"))
def test_several_passes_cannot_have_such_a_part(llama, name):
    def own(model, batch):
        loss = model(**batch).loss
        (0.5 * loss).backward(retain_graph=True)
        return loss

    with pytest.raises(NoiseError, match=f"must leave backward to its caller with {name}"):
        attached(llama(attention_dropout=0.1).train(), name).loss(BATCH, compute=own)


def test_two_callbacks_do_not_add_up(llama, tmp_path):
    args = TrainingArguments(**short_run(tmp_path))
    rows = [{"input_ids": row.tolist(), "labels": row.tolist()} for row in IDS]
    model = llama()
    before = copy.deepcopy(weights(model))
    trainer = HFTrainer(model, args, train_dataset=rows, callbacks=[NoiseCallback(name) for name in ONCE[:2]])
    with pytest.raises(NoiseError, match="must have one noise in a step, got a second one"):
        trainer.train()
    assert apart(weights(model), before) == 0
