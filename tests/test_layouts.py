"""Whatever the layout, the split or the checkpointing of a batch: the same loss and the same gradients."""

import pytest
import torch
from conftest import fitting
from naive import DOCUMENTS, INPUTS, furthest, gradients, packed, padded
from transformers import TrainerCallback

import neft_zoo
from neft_zoo import SFTTrainer, attach, make

NAMES = neft_zoo.names()
PAIRED = [*DOCUMENTS, [23, 24, 25, 26, 27, 28]]  # two of one length, for the entry that mixes them
SPLIT = [name for name in NAMES if name != "embed_mix"]  # it mixes what is in a micro-batch


def step(model, tokenizer, name, inputs):
    """Return the loss and the gradients of one step."""
    counts = torch.arange(len(tokenizer)) % 7
    handle = attach(model, fitting(name), total_steps=1, tokenizer=tokenizer, token_counts=counts)
    torch.manual_seed(3)
    with handle.perturbed():
        loss = handle.loss(inputs)
        loss.backward()
    handle.detach()
    return loss.item(), gradients(model)


def differ(one, other):
    return max(abs(one[0] / other[0] - 1), furthest(one[1], other[1]))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "r_drop"])  # masks depend on the layout
def test_padding_left_or_right_and_packing_are_alike(llama, tokenizer, name):
    model = llama().double().train()
    right, left, flat = (
        step(model, tokenizer, name, inputs)
        for inputs in (padded(PAIRED), padded(PAIRED, side="left"), packed(PAIRED))
    )
    assert differ(left, right) < 1e-4 and differ(flat, right) < 1e-4
    if make(fitting(name)).noise is not None:
        plain = step(model, tokenizer, "none", padded(PAIRED))
        assert differ(plain, right) > 1e-2, "what is compared is not the plain loss"


@pytest.mark.parametrize("name", NAMES)
def test_gradient_checkpointing_changes_nothing(llama, tokenizer, name):
    """With dropout: what is computed again must see the masks, and the noise, of the first time."""
    model = llama(attention_dropout=0.2).train()
    plain = step(model, tokenizer, name, INPUTS)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert differ(step(model, tokenizer, name, INPUTS), plain) < 1e-6


class Gradients(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.found = {name: p.grad.double().clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def trained(llama, config, records, tokenizer):
    """Return a maker of one optimizer step of four records: its logged loss and its gradients."""

    def run(noise, model=None, **settings):
        seen = Gradients()
        trainer = SFTTrainer(
            model or llama(),
            args=config(max_steps=1, max_grad_norm=0, **settings),
            train_dataset=records.select(range(4)),
            processing_class=tokenizer,
            noise=noise,
            callbacks=[seen],
        )
        trainer.train()
        return trainer.state.log_history[0]["loss"], seen.found

    return run


@pytest.mark.parametrize("name", [name for name in SPLIT if name not in ("noisy_tune", "r_drop")])
def test_one_batch_of_four_is_four_of_one(trained, name):
    """`noisy_tune` has nothing to do with batches, and the masks of `r_drop` depend on them."""
    whole = trained(fitting(name))
    split = trained(fitting(name), per_device_train_batch_size=1, gradient_accumulation_steps=4)
    assert differ(split, whole) < 1e-3


@pytest.mark.parametrize("name", ["symnoise", "r3f", "lnsr", "vat", "freelb", "lat", "cat", "embed_mix"])
def test_a_padding_free_trainer_is_alike(trained, name):
    whole = trained(fitting(name))
    assert differ(trained(fitting(name), padding_free=True, max_length=None), whole) < 1e-3


@pytest.mark.parametrize("name", ["freelb", "fgm", "pgd", "smart", "r3f"])
def test_autocast_and_lora_train_as_in_full_precision(llama, trained, name):
    from peft import LoraConfig, get_peft_model

    def model():
        made = llama()
        torch.manual_seed(1)
        # The padding token's zero would be where all of the ascent goes.
        torch.nn.init.normal_(made.get_input_embeddings().weight, std=0.02)
        config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
        return get_peft_model(made, config)

    settings = [dict(bf16=bf16, gradient_checkpointing=True) for bf16 in (False, True)]
    full, half = (trained(fitting(name), model=model(), **one) for one in settings)
    assert 0 < differ(half, full) < 0.1
