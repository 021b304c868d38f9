"""Copies of a model that carries a noise: no hook, and a clean loss, also if they are made inside of a pass."""

import copy
import io
import pickle

import pytest
import torch
from peft import LoraConfig, get_peft_model
from selection import one_of_each_kind, quick
from small_models import fitting

import neft_zoo
from neft_zoo import attach

IDS = torch.arange(5, 57).view(2, 26)
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": IDS.clone()}
HOOKS = ("_forward_hooks", "_forward_pre_hooks")
KINDS = [*HOOKS, *(f"{kind}_with_kwargs" for kind in HOOKS), "_forward_hooks_always_called"]
# Strategies of vision-language models, or of a frozen second model, are copied as the others of their kind are.
NAMES = [name for name in neft_zoo.names() if name not in ("visual_noise", "stm")]


def saved(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda model: pickle.loads(pickle.dumps(model)), "torch.save": saved}


def hooks(model):
    """Return all that stands in the dictionaries of hooks, attributes of theirs included."""
    found = [getattr(module, kind) for module in model.modules() for kind in KINDS]
    return [(dict(each), vars(each)) for each in found if each or vars(each)]


def build(llama, name):
    model = llama(attention_dropout=0.1 if name == "r_drop" else 0.0).train()
    if name != "lora_matrix_dropout":
        return model
    return get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)).train()


def loss_of(model):
    torch.manual_seed(0)
    return model(**BATCH).loss


@pytest.mark.cell("Faults", "deepcopy, pickle, save_pretrained")
@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", quick(NAMES, *one_of_each_kind(NAMES)))
def test_a_copy_has_no_hook_and_the_clean_loss(llama, tokenizer, name, how):
    model, copies = build(llama, name), []
    clean, counts = loss_of(model), torch.ones(len(tokenizer)).long()

    def copying(model, inputs):
        copies.append(COPIES[how](model))
        return model(**inputs).loss

    with attach(model, fitting(name), total_steps=1, tokenizer=tokenizer, token_counts=counts) as handle:
        handle.loss(BATCH, compute=copying).backward()
        copies.append(COPIES[how](model))
        assert name in ("none",) or handle.strategy.weights is not None or hooks(model)
    for twin in copies:
        assert not hooks(twin)
        assert torch.equal(loss_of(twin), clean)
    assert not hooks(model) and not any("__deepcopy__" in vars(weight) for weight in model.parameters())


@pytest.mark.parametrize("how", COPIES)
def test_hooks_of_the_models_own_are_copied_and_can_be_removed(llama, how):
    """As with PEFT and gradient checkpointing: the model keeps the handles."""
    model = llama().train()
    model.enable_input_require_grads()
    model.handle = model.model.register_forward_hook(torch.nn.Identity(), always_call=True)
    with attach(model, "neft_uniform", total_steps=1):
        if how == "deepcopy":
            twin = COPIES[how](model)
            twin.disable_input_require_grads()
        else:
            model.disable_input_require_grads()  # a closure of transformers', which no pickle takes
            twin = COPIES[how](model)
    assert len(hooks(twin)) == 2
    twin.handle.remove()
    assert not hooks(twin)


def test_two_noises_leave_a_model_in_any_order(llama):
    model = llama().train()
    first, second = (attach(model, name, total_steps=1) for name in ("neft_uniform", "hype"))
    first.detach()
    assert not hooks(copy.deepcopy(model))
    second.detach()
    assert not hooks(model)


@pytest.mark.parametrize("name", ["neft_uniform", "freelb", "hype"])
def test_a_copied_handle_has_hooks_on_its_own_model(llama, name):
    handle = attach(llama().train(), name, total_steps=4)
    with copy.deepcopy(handle) as twin:
        assert twin.model is not handle.model
        assert torch.equal(twin.loss(BATCH, step=1), handle.loss(BATCH, step=1)) and hooks(twin.model)
    assert not hooks(twin.model) and hooks(handle.model)
