"""`enable` and `NoiseCallback`: noise for trainers that were made without it."""

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
import trl
from small_models import same, weights
from test_subclasses import mean_square, step_of_its_own
from test_trainers import KINDS, LOUD, build  # noqa: F401 - a fixture

from neft_zoo import NoiseCallback, NoiseError, NoiseMixin, SFTTrainer, enable


@pytest.fixture
def sft(llama, config, records, tokenizer):
    """Return a maker of SFT trainers: TRL's without a strategy, ours with one."""

    def make(noise=None, cls=trl.SFTTrainer, callbacks=None, **settings):
        data = dict(train_dataset=records, processing_class=tokenizer, callbacks=callbacks)
        if "eval_strategy" in settings:
            data["eval_dataset"] = records.select(range(8))
        extra = {} if noise is None else {"noise": noise}
        return cls(llama(), args=config(**{"max_steps": 2, **settings}), **data, **extra)

    return make


def hooks_of(model):
    return [hook for module in model.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]


def lines_of(trainer):
    return [
        {k: v for k, v in line.items() if "time" not in k and "second" not in k} for line in trainer.state.log_history
    ]


def skip_unless_picklable(trainer):
    """Skip where accelerate holds weak references to loaders of refused trainings, which nothing can copy."""
    try:
        pickle.dumps(trainer)
    except TypeError as error:
        pytest.skip(f"the stock trainer: {error}")


@pytest.mark.parametrize("noise", ["neft_uniform", "symnoise", "r3f", "freelb", "masked_thought", "hype", "flat_lora"])
def test_enable_trains_as_our_trainer_does_bit_for_bit(sft, noise):
    ours, enabled, plain = sft(noise, SFTTrainer), sft(), sft()
    assert enable(enabled, noise) is enabled
    for trainer in (ours, enabled, plain):
        trainer.train()
    assert same(weights(ours.model), weights(enabled.model))
    assert lines_of(ours) == lines_of(enabled)
    assert not same(weights(ours.model), weights(plain.model))
    assert not hooks_of(enabled.model)


@pytest.mark.cell("Trainers", "{kind}, given to enable()")
@pytest.mark.parametrize("kind", KINDS)
def test_enable_trains_every_stock_trainer_as_ours_bit_for_bit(build, kind):  # noqa: F811
    ours, enabled = build(kind, noise=LOUD), enable(build(kind, cls=KINDS[kind].stock), LOUD)
    for trainer in (ours, enabled):
        torch.manual_seed(0)  # of generation
        trainer.train()
    assert same(weights(ours.model), weights(enabled.model))
    assert lines_of(ours) == lines_of(enabled)


def test_the_class_keeps_its_name_and_becomes_a_subclass(sft):
    trainer = enable(sft(), LOUD)
    assert type(trainer).__name__ == "SFTTrainer" and type(trainer).__module__ == trl.SFTTrainer.__module__
    assert isinstance(trainer, trl.SFTTrainer) and isinstance(trainer, NoiseMixin)
    assert type(enable(sft(), LOUD)) is type(trainer), "one class for one base"
    trainer.train()
    trainer.save_model()
    trainer.create_model_card()
    card = (Path(trainer.args.output_dir) / "README.md").read_text()
    assert "neft_uniform" in card and "SFT" in card
    assert json.loads((Path(trainer.args.output_dir) / "noise.json").read_text())["name"] == "neft_uniform"


def test_the_same_noise_twice_is_once_and_another_is_refused(sft):
    once, twice = enable(sft(), LOUD), enable(enable(sft(), LOUD), LOUD)
    for trainer in (once, twice):
        trainer.train()
    assert same(weights(once.model), weights(twice.model))
    assert enable(sft("symnoise", SFTTrainer), "symnoise").strategy.name == "symnoise"
    with pytest.raises(
        NoiseError, match="^trainer must have no other noise, got symnoise {.*} where it has neft_uniform {'alpha': 20"
    ):
        enable(once, "symnoise")


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_an_enabled_trainer_can_be_copied(sft, how):
    skip_unless_picklable(sft())
    trainer = enable(sft(), LOUD)
    copied = copy.deepcopy(trainer) if how == "deepcopy" else pickle.loads(pickle.dumps(trainer))
    assert type(copied) is type(trainer) and copied.model is not trainer.model
    for each in (trainer, copied):
        each.train()
    assert same(weights(trainer.model), weights(copied.model)) and not hooks_of(copied.model)


REFUSED = {
    "an unknown name": (dict(), dict(noise="nefttune"), "nefttune"),
    "neftune_noise_alpha": (dict(neftune_noise_alpha=5.0), dict(noise=LOUD), "^neftune_noise_alpha must be unset"),
    "a subspace too large": (dict(), dict(noise={"name": "token_subspace", "k": 10**6}), "k must be"),
    "reference": (dict(), dict(noise=LOUD, reference="same"), "^reference='same' needs a trainer that runs"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_refusal_leaves_the_trainer_as_it_was(sft, what):
    settings, arguments, message = REFUSED[what]
    trainer = sft(**settings)
    before, callbacks = dict(vars(trainer)), list(trainer.callback_handler.callbacks)
    with pytest.raises(NoiseError, match=message):
        enable(trainer, **arguments)
    assert type(trainer) is trl.SFTTrainer and vars(trainer) == before and not hooks_of(trainer.model)
    assert trainer.callback_handler.callbacks == callbacks


def test_what_is_no_trainer_is_refused():
    with pytest.raises(NoiseError, match="^trainer must be a transformers.Trainer, got Linear; .*attach"):
        enable(torch.nn.Linear(2, 2), "symnoise")


@pytest.mark.parametrize("noise", ["neft_uniform", "symnoise"])
def test_a_class_with_a_loss_of_its_own_and_one_with_a_step_of_its_own(sft, noise):
    class Own(trl.SFTTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return mean_square(model, inputs)

    own = enable(sft(cls=Own), noise)
    own.train()
    assert all(line["noise/rms"] > 0.01 for line in own.state.log_history if "loss" in line)
    steps = {"training_step": step_of_its_own(lambda self, model, inputs: mean_square(model, inputs))}
    stepping = enable(sft(cls=type("Steps", (trl.SFTTrainer,), steps)), noise)
    if noise == "symnoise":
        with pytest.raises(NoiseError, match="^Steps.training_step must call compute_loss"):
            stepping.train()
    else:
        stepping.train()
        assert all(line["noise/rms"] > 0.01 for line in stepping.state.log_history if "loss" in line)


ONE_PASS = ["none", "neft_uniform", "neft_completion", "token_relative", "hype", "noisy_tune", "dx_laplace"]


@pytest.mark.parametrize("noise", ONE_PASS)
def test_a_callback_trains_as_our_trainer_does_bit_for_bit(sft, noise):
    settings = dict(save_strategy="steps", save_steps=1, gradient_accumulation_steps=2)
    ours, other = sft(noise, SFTTrainer, **settings), sft(callbacks=[NoiseCallback(noise)], **settings)
    for trainer in (ours, other):
        trainer.train()
    assert same(weights(ours.model), weights(other.model)) and not hooks_of(other.model)
    logged = [{k: v for k, v in line.items() if k != "total_flos"} for line in lines_of(other)]
    assert logged == [{k: v for k, v in line.items() if k != "total_flos"} for line in lines_of(ours)]
    folder = Path(other.args.output_dir)
    for path in (folder, folder / "checkpoint-1", folder / "checkpoint-2"):
        assert json.loads((path / "noise.json").read_text())["name"] == noise


@pytest.mark.cell("Trainers", "{kind}, NoiseCallback")
@pytest.mark.parametrize("kind", KINDS)
def test_a_callback_goes_into_every_stock_trainer(build, kind):  # noqa: F811
    ours, other = build(kind, noise=LOUD), build(kind, cls=KINDS[kind].stock, callbacks=[NoiseCallback(LOUD)])
    for trainer in (ours, other):
        torch.manual_seed(0)  # of generation
        trainer.train()
    assert same(weights(ours.model), weights(other.model))


@pytest.mark.parametrize("noise", ["symnoise", "r3f", "lat", "embed_mix", "masked_thought", "flat_lora"])
def test_a_callback_of_more_than_one_pass_is_refused_when_it_is_made(noise):
    with pytest.raises(NoiseError, match=rf"^a callback adds noise to the one pass .* enable\(trainer, '{noise}'\)"):
        NoiseCallback(noise)


def test_a_callback_is_refused_before_training_beside_another_noise(sft):
    with pytest.raises(NoiseError, match="^neftune_noise_alpha must be unset when noise is given"):
        sft(callbacks=[NoiseCallback(LOUD)], neftune_noise_alpha=5.0)
    trainer = enable(sft(callbacks=[NoiseCallback(LOUD)]), LOUD)
    with pytest.raises(NoiseError, match="^SFTTrainer must have one noise, got 'neft_uniform' and a NoiseCallback"):
        trainer.train()
    assert not hooks_of(trainer.model)


def test_a_callback_refuses_to_go_on_with_another_noise(sft):
    settings = dict(save_strategy="steps", save_steps=1)
    sft(callbacks=[NoiseCallback(LOUD)], **settings).train()
    whole = sft(callbacks=[NoiseCallback(LOUD)], **settings, max_steps=3)
    whole.train(resume_from_checkpoint=True)
    assert whole.state.global_step == 3
    with pytest.raises(NoiseError, match="holds a run with noise neft_uniform"):
        sft(callbacks=[NoiseCallback("neft_gaussian")], **settings, max_steps=4).train(resume_from_checkpoint=True)


def test_evaluation_in_a_run_with_a_callback_is_clean(sft):
    settings = dict(eval_strategy="steps", eval_steps=2, learning_rate=0.0)
    noisy, plain = sft(callbacks=[NoiseCallback(LOUD)], **settings), sft(**settings)
    for trainer in (noisy, plain):
        trainer.train()
    inside, outside = (next(x["eval_loss"] for x in t.state.log_history if "eval_loss" in x) for t in (noisy, plain))
    assert inside == outside
    losses = [[x["loss"] for x in t.state.log_history if "loss" in x] for t in (noisy, plain)]
    assert losses[0] != losses[1]


def test_a_callback_in_a_model_that_is_called_without_token_ids_is_refused_before_the_optimizer_steps(sft):
    class Embeds(trl.SFTTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return model(inputs_embeds=model.get_input_embeddings()(inputs["input_ids"])).logits.square().mean()

    trainer = sft(cls=Embeds, callbacks=[callback := NoiseCallback(LOUD)])
    before = weights(trainer.model)
    with pytest.raises(NoiseError, match="input_ids"):
        trainer.train()
    assert same(weights(trainer.model), before)
    callback.detach()
    assert not hooks_of(trainer.model)


def test_a_callback_is_part_of_a_trainer_that_is_pickled(sft):
    skip_unless_picklable(sft())
    trainer = sft(callbacks=[NoiseCallback(LOUD)])
    copied = pickle.loads(pickle.dumps(trainer))
    trainer.train(), copied.train()
    assert same(weights(trainer.model), weights(copied.model))
