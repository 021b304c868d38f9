"""A step is trained under the strategy, or refused before the optimizer takes it, whatever a subclass overrides."""

import inspect
from itertools import product
from pathlib import Path

import pytest
import torch
import trl
from selection import quick
from small_models import apart, same, weights
from test_trainers import KINDS, build  # noqa: F401 - a fixture
from transformers.trainer_utils import TrainOutput

from neft_zoo import NoiseError, NoiseMixin, SFTTrainer
from neft_zoo.training import outermost_loss

LOUD = {"name": "neft_uniform", "alpha": 20}


@pytest.fixture
def sft(llama, config, records, tokenizer):
    """Return a maker of SFT trainers of a class."""

    def make(cls=SFTTrainer, noise=LOUD, **settings):
        extra = {} if noise is None else {"noise": noise}
        data = dict(train_dataset=records, processing_class=tokenizer)
        return cls(llama(), args=config(**{"max_steps": 2, **settings}), **data, **extra)

    return make


def mean_square(model, inputs):
    """Return a loss that calls the model by itself, on the first token ids that a batch of any trainer holds."""
    name = "input_ids" if "input_ids" in inputs else next(name for name in inputs if name.endswith("_ids"))
    ids = inputs[name]
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float().square().mean()


def own_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
    return mean_square(model, inputs)


def noise_of(trainer):
    return [line["noise/rms"] for line in trainer.state.log_history if "loss" in line]


@pytest.mark.parametrize(
    ("kind", "how"),
    quick(product(KINDS, ("subclass", "instance")), *((kind, "subclass") for kind in KINDS), ("DPO", "instance")),
)
def test_a_loss_that_calls_the_model_by_itself_gets_noise_in_every_trainer(build, kind, how):  # noqa: F811
    stock = build(kind, noise=LOUD)
    if how == "subclass":
        trainer = build(kind, cls=type("W", (type(stock),), {"compute_loss": own_loss}), noise=LOUD)
    else:
        trainer = stock
        trainer.compute_loss = replaced = own_loss.__get__(trainer)
    trainer.train()
    assert len(noise_of(trainer)) == 2 and all(rms > 0.01 for rms in noise_of(trainer))
    assert not any(module._forward_hooks for module in trainer.model.modules())
    assert ("compute_loss" in vars(trainer)) == (how == "instance")
    if how == "instance":
        assert trainer.compute_loss is replaced
    trainer.save_model()
    assert (Path(trainer.args.output_dir) / "noise.json").exists()


def crossentropy(self, model, inputs, return_outputs=False, num_items_in_batch=None):
    return model(**inputs).loss


@pytest.mark.parametrize(
    "noise",
    quick(
        ["neft_uniform", "symnoise", "r3f", "pgd", "freelb", "masked_thought", "hype"],
        *("neft_uniform", "r3f", "freelb", "masked_thought"),
    ),
)
def test_the_models_own_loss_called_by_a_subclass_is_trained_as_by_a_base_class(sft, noise):
    """In front of the mixin or behind it: the same loss, and the same noise."""
    in_front = sft(type("Front", (SFTTrainer,), {"compute_loss": crossentropy}), noise)
    behind = sft(
        type("Behind", (NoiseMixin, type("Base", (trl.SFTTrainer,), {"compute_loss": crossentropy})), {}), noise
    )
    for trainer in (in_front, behind):
        trainer.train()
    plain = sft(type("Base", (trl.SFTTrainer,), {"compute_loss": crossentropy}), None)
    plain.train()
    assert same(weights(in_front.model), weights(behind.model))
    assert not same(weights(in_front.model), weights(plain.model))


@pytest.mark.parametrize("noise", ["none", "symnoise", "r3f", "freelb"])
def test_a_subclass_that_scales_our_loss_scales_the_step(sft, noise):
    calls = []

    class Tenth(SFTTrainer):
        def compute_loss(self, *args, **kwargs):
            calls.append(1)
            return 0.1 * super().compute_loss(*args, **kwargs)

    sgd = dict(optim="sgd", max_grad_norm=0.0, lr_scheduler_type="constant", max_steps=1)
    one, other = sft(Tenth, noise, learning_rate=1.0, **sgd), sft(SFTTrainer, noise, learning_rate=0.1, **sgd)
    for trainer in (one, other):
        trainer.train()
    assert calls == [1] and apart(weights(one.model), weights(other.model)) < 1e-6


def test_a_subclass_that_calls_our_loss_copies_no_gradients(sft, monkeypatch):
    made = []

    class Watched(outermost_loss.WeightGradients):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(any(value is not None for value in self._values))

    monkeypatch.setattr(outermost_loss, "WeightGradients", Watched)

    class Tenth(SFTTrainer):
        def compute_loss(self, *args, **kwargs):
            return 0.1 * super().compute_loss(*args, **kwargs)

    sft(Tenth, gradient_accumulation_steps=2).train()
    assert len(made) == 4 and not any(made)


def test_some_batches_come_to_our_loss_and_some_do_not(sft):
    class Alternating(SFTTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            if self.state.global_step % 2:
                return mean_square(model, inputs)
            return super().compute_loss(model, inputs, *args, **kwargs)

    trainer = sft(Alternating, max_steps=4)
    trainer.train()
    assert len(noise_of(trainer)) == 4 and all(rms > 0.01 for rms in noise_of(trainer))


def step_of_its_own(loss):
    def training_step(self, model, inputs, num_items_in_batch=None):
        model.train()
        value = loss(self, model, inputs)
        self.accelerator.backward(value)
        return value.detach()

    return training_step


BASES = {"behind the mixin": False, "in front of it": True}


def with_a_step(where, loss):
    """Return a class whose training step computes a loss, in front of the mixin or behind it."""
    step = {"training_step": step_of_its_own(loss)}
    if BASES[where]:
        return type("Front", (SFTTrainer,), step)
    return type("Behind", (NoiseMixin, type("Base", (trl.SFTTrainer,), step)), {})


@pytest.mark.parametrize("where", BASES)
def test_a_training_step_that_passes_by_is_refused_before_the_optimizer_steps(sft, where):
    cls = with_a_step(where, lambda self, model, inputs: mean_square(model, inputs))
    trainer = sft(cls, "symnoise")
    before = weights(trainer.model)
    with pytest.raises(NoiseError, match=rf"^{cls.__name__}.training_step must call compute_loss, .* symnoise"):
        trainer.train()
    assert same(weights(trainer.model), before), "the optimizer took a step"
    assert not any(module._forward_hooks for module in trainer.model.modules())
    trainer.save_model()
    assert not (Path(trainer.args.output_dir) / "noise.json").exists()
    sft(cls, "none").train()


@pytest.mark.parametrize("where", BASES)
def test_noise_of_one_pass_goes_into_the_calls_of_a_training_step_that_passes_by(sft, where):
    def loss(self, model, inputs, *_, **__):
        return model(inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits.float().square().mean()

    noisy, own_loss_noisy = sft(with_a_step(where, loss)), sft(type("W", (SFTTrainer,), {"compute_loss": loss}))
    for trainer in (noisy, own_loss_noisy):
        trainer.train()
    assert noise_of(noisy) == noise_of(own_loss_noisy) and all(rms > 0.01 for rms in noise_of(noisy))
    assert same(weights(noisy.model), weights(own_loss_noisy.model))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in noisy.model.modules())
    noisy.save_model()
    assert (Path(noisy.args.output_dir) / "noise.json").exists()


def test_a_training_step_that_computes_the_loss_by_us_works(sft):
    step = step_of_its_own(lambda self, model, inputs: self.compute_loss(model, inputs))
    trainer = sft(type("Front", (SFTTrainer,), {"training_step": step}))
    trainer.train()
    assert all(rms > 0.01 for rms in noise_of(trainer))


def test_a_batch_that_is_skipped_is_no_step_without_noise(sft):
    class Skips(SFTTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            if self.state.global_step == 0:
                return sum(weight.sum() for weight in model.parameters()) * 0
            return super().compute_loss(model, inputs, *args, **kwargs)

    trainer = sft(Skips)
    trainer.train()
    first, second = (line for line in trainer.state.log_history if "loss" in line)
    assert "noise/rms" not in first and second["noise/rms"] > 0.01


def test_weights_that_no_step_perturbs_are_refused(sft):
    step = step_of_its_own(lambda self, model, inputs: self.compute_loss(model, inputs))
    cls = type("Front", (SFTTrainer,), {"training_step": step})
    with pytest.raises(NoiseError, match="Front.training_step must call"):
        sft(cls, "flat_lora").train()


def test_noise_json_is_of_noise_that_happened(sft):
    for noise, happened in (("neft_uniform", False), ("none", True), ("noisy_tune", False)):
        trainer = sft(SFTTrainer, noise)
        out = Path(trainer.args.output_dir) / noise
        trainer.save_model(str(out))
        assert (out / "noise.json").exists() == happened
        trainer.args.output_dir = str(out)
        trainer.train()
        trainer.save_model()
        assert (out / "noise.json").exists()


def one(self, model, inputs, return_outputs=False, **kwargs):
    return trl.SFTTrainer.compute_loss(self, model, inputs, return_outputs, **kwargs)


def two(self, model, inputs, **kwargs):
    return trl.SFTTrainer.compute_loss(self, model, inputs, **kwargs)


def three(self, model, inputs, num_items_in_batch=None, return_outputs=False):
    return trl.SFTTrainer.compute_loss(self, model, inputs, return_outputs, num_items_in_batch)


def four(self, *args, **kwargs):
    return trl.SFTTrainer.compute_loss(self, *args, **kwargs)


def five(self, model, inputs, return_outputs=False, *, num_items_in_batch=None, extra=None):
    return trl.SFTTrainer.compute_loss(self, model, inputs, return_outputs, num_items_in_batch)


@pytest.mark.parametrize("compute_loss", [one, two, three, four, five], ids=lambda f: str(inspect.signature(f)))
def test_any_signature_that_the_base_class_trains_with_gives_its_numbers(sft, compute_loss):
    base = type("Base", (trl.SFTTrainer,), {"compute_loss": compute_loss})
    stock, ours = sft(base, None), sft(type("Ours", (NoiseMixin, base), {}), "none")
    noisy = sft(type("Ours", (NoiseMixin, base), {}))
    for trainer in (stock, ours, noisy):
        trainer.train()
        trainer.evaluate(trainer.train_dataset)
    assert same(weights(stock.model), weights(ours.model)) and all(rms > 0.01 for rms in noise_of(noisy))


def by_call(model, embeds, labels):
    return model(inputs_embeds=embeds, labels=labels).loss


def by_forward(model, embeds, labels):
    return model.forward(inputs_embeds=embeds, labels=labels).loss


def by_parts(model, embeds, labels):
    return model.lm_head(model.model.layers[0].mlp(embeds)).float().square().mean()


NO_IDS = "the loss must call the model with input_ids, which noise enters by, got none from LlamaForCausalLM"


@pytest.mark.parametrize("name", ["neft_uniform", "symnoise", "r3f"])
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (by_call, NO_IDS),
        (by_forward, NO_IDS),
        (by_parts, "W.training_step must call compute_loss, in train mode, for the noise of"),
    ],
)
def test_a_loss_that_looks_embeddings_up_by_itself_is_refused_before_a_step(sft, name, call, match):
    def own_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        embeds = torch.nn.functional.embedding(inputs["input_ids"], model.get_input_embeddings().weight)
        return call(model, embeds, inputs["labels"])

    cls = type("W", (SFTTrainer,), {"compute_loss": own_loss})
    trainer = sft(cls, name)
    before = weights(trainer.model)
    with pytest.raises(NoiseError, match=match):
        trainer.train()
    assert same(weights(trainer.model), before)
    sft(cls, "none").train()


def test_a_loss_that_skips_every_batch_is_accepted(sft):
    def skipped(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return sum(weight.sum() for weight in model.parameters()) * 0  # as processes do that must all reduce gradients

    trainer = sft(type("W", (SFTTrainer,), {"compute_loss": skipped}))
    before = weights(trainer.model)
    trainer.train()
    assert apart(weights(trainer.model), before) < 1e-6


def test_a_training_loop_that_announces_nothing_is_refused_before_its_model_is_saved(sft):
    def loop(self, *args, **kwargs):
        self.model.train()(**next(iter(self.get_train_dataloader()))).loss.backward()
        return TrainOutput(1, 0.0, {})

    cls = type("W", (SFTTrainer,), {"_inner_training_loop": loop})
    with pytest.raises(NoiseError, match="W.train must call callbacks as transformers does, for the noise of neft_"):
        sft(cls).train()
    sft(cls, "none").train()
