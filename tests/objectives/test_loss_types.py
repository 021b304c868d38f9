"""Whatever loss a trainer has, an objective counts that one: no cross-entropy of its own in its place."""

import pytest
import torch
from small_models import fitting
from torch.nn.functional import cross_entropy

from neft_zoo import NoiseError, NoiseSFTConfig, SFTTrainer, attach, make, registry
from neft_zoo.noise.batch import Batch, step_key
from neft_zoo.noise.mixup import EmbedMix


def focal(outputs, labels, num_items_in_batch=None):
    """Return a loss that no library has."""
    nll = cross_entropy(outputs.logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), reduction="none")
    return (nll * (1 - (-nll).exp()) ** 2).sum() / num_items_in_batch


TRL = NoiseSFTConfig.__dataclass_fields__["loss_type"].metadata["choices"]
LOSSES = {
    **{name: {"loss_type": name} for name in TRL},
    "smoothed": {"label_smoothing_factor": 0.1},
    "focal": {"compute_loss_func": focal},
}
# At the least strength an entry's loss is so many times the trainer's own.
LEAST = {
    "cat": ({"eps": 0.0}, 1),
    "cutoff_feature": ({"ratio": 0.0}, 2),
    "cutoff_span": ({"ratio": 0.0}, 2),
    "cutoff_token": ({"ratio": 0.0}, 2),
    "embed_mix": ({}, 1),  # of rows alone in their batch
    "fgm": ({"eps": 0.0}, 2),
    "freelb": ({"alpha": 0.0, "radius": 0.0}, 1),
    "hidden_cut": ({"ratio": 0.0}, 2),
    "lat": ({"eps": 0.0, "layers": [1], "steps": 2}, 1),
    "lnsr": ({"size": 0.0}, 1),
    "noisefit": ({"size": 0.0}, 0.5),
    "pdr": ({"eps": 0.0}, 1),
    "pgd": ({"alpha": 0.0, "radius": 0.0}, 1),
    "r3f": ({"eps": 0.0}, 1),
    "r_drop": ({}, 1),  # of a model that drops next to nothing
    "sam": ({"rho": 0.0}, 1),
    "smart": ({"radius": 0.0, "start": 1e-6}, 1),
    "symnoise": ({"alpha": 0.0}, 1),
    "token_vat": ({"alpha": 0.0, "radius": 0.0}, 1),
    "vaccine": ({"rho": 0.0}, 1),
    "vat": ({"radius": 0.0, "start": 1e-6}, 1),
}
SEVERAL = [name for name in registry.builtin_names() if make(fitting(name)).objective.passes > 1] + ["embed_mix"]


@pytest.fixture
def one_step(llama, config, records, tokenizer):
    """Return what takes the loss and the gradients of a first batch."""

    def run(noise, kind, rows=1, **settings):
        told = {**LOSSES[kind], **settings}
        call = {"compute_loss_func": told.pop("compute_loss_func", None)}
        args = config(per_device_train_batch_size=rows, **told)
        known = dict(train_dataset=records, processing_class=tokenizer, noise=noise, **call)
        trainer = SFTTrainer(llama(attention_dropout=1e-9), args=args, **known)
        batches, count = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, args.device)
        torch.manual_seed(0)
        loss = trainer.training_step(trainer.model.train(), batches[0], count)
        return loss, {name: weight.grad for name, weight in trainer.model.named_parameters()}, batches[0], trainer

    return run


def test_every_entry_of_several_passes_is_here():
    assert sorted(LEAST) == sorted(SEVERAL)


# Every loss with one entry of each way to count it, the rest in the full run.
EACH = [
    pytest.param(kind, name, marks=[] if name in ("embed_mix", "cutoff_token", "symnoise") else pytest.mark.slow)
    for kind in LOSSES
    for name in LEAST
]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("kind", "name"), EACH)
def test_without_strength_an_entry_has_the_trainers_own_gradient(one_step, kind, name):
    settings, times = LEAST[name]
    plain, expected, *_ = one_step("none", kind)
    loss, grads, *_ = one_step({"name": name, **settings}, kind)
    torch.testing.assert_close(loss, times * plain, rtol=1e-5, atol=0)
    for key, gradient in expected.items():
        torch.testing.assert_close(grads[key], times * gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", LOSSES)
def test_mixed_targets_are_the_trainers_own_loss_of_both_labels(one_step, records, kind):
    """The reference mixes the embeddings by a hook, and asks the trainer for its loss of either labels."""
    *_, batch, plain = one_step("none", kind, rows=8)
    loss, grads, again, _ = one_step({"name": "embed_mix", "a": 5.0}, kind, rows=8)
    assert torch.equal(batch["input_ids"], again["input_ids"])
    noise, known = EmbedMix(5.0), Batch.from_inputs(batch, key=step_key(plain.args.seed, 0, 0))
    share, count = noise.share(known), (batch["labels"][:, 1:] != -100).sum()
    assert noise.mixes(known) and share < 0.99
    plain.model.get_input_embeddings().register_forward_hook(lambda _, args, out: out + noise(out, known))
    plain.model.zero_grad()

    def of(labels):
        return plain.compute_loss(plain.model, {**batch, "labels": labels}, num_items_in_batch=count)

    expected = share * of(batch["labels"]) + (1 - share) * of(noise.partners_labels(known))
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=0)
    for key, weight in plain.model.named_parameters():
        torch.testing.assert_close(grads[key], weight.grad, rtol=1e-3, atol=1e-6)


def test_a_loop_has_a_loss_of_its_own_too(llama):
    ids = torch.arange(5, 29).view(2, 12)
    inputs, model = {"input_ids": ids, "labels": ids}, llama().train()

    def squared(model, given):
        return (model(given["input_ids"]).logits[:, :-1].gather(-1, given["labels"][:, 1:, None]) ** 2).mean()

    noise, known = EmbedMix(5.0), Batch.from_inputs(inputs, key=step_key(0, 0, 0))
    loss = attach(model, {"name": "embed_mix", "a": 5.0}, total_steps=1).loss(inputs, compute=squared)
    share, table = noise.share(known), model.get_input_embeddings().weight
    mixed = model(inputs_embeds=share * table[ids] + (1 - share) * table[ids.flip(0)]).logits[:, :-1]
    of = [(mixed.gather(-1, labels[:, 1:, None]) ** 2).mean() for labels in (ids, ids.flip(0))]
    torch.testing.assert_close(loss, share * of[0] + (1 - share) * of[1], rtol=1e-4, atol=0)


def test_a_second_pass_under_reentrant_checkpointing_is_refused(llama):
    model = llama().train()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    handle = attach(model, "embed_mix", total_steps=1)
    ids = torch.arange(5, 29).view(2, 12)
    with pytest.raises(NoiseError, match="use_reentrant must be false with mixed targets"):
        handle.loss({"input_ids": ids, "labels": ids})
