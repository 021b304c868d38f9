"""Real training through TRL: what noise changes, and what it must not."""

import copy
import pickle

import pytest
import torch
import trl
from selection import quick
from small_models import apart, same, weights
from transformers import TrainerCallback

from neft_zoo import NoiseError, SFTTrainer, make


def train(llama, config, records, tokenizer, noise, cls=SFTTrainer, callbacks=(), model=None, **settings):
    """Train a tiny Llama and return its trainer."""
    extra = {} if noise is None else {"noise": noise}
    trainer = cls(
        model or llama(),
        args=config(**settings),
        train_dataset=records,
        eval_dataset=records.select(range(8)),
        processing_class=tokenizer,
        callbacks=list(callbacks),
        **extra,
    )
    trainer.train()
    return trainer


@pytest.fixture
def run(llama, config, records, tokenizer):
    def go(noise, **settings):
        return train(llama, config, records, tokenizer, noise, **settings)

    return go


@pytest.mark.cell("Trainers", "SFT")
@pytest.mark.cell("Trainers", "SFT, activation checkpointing: {checkpointing}")
@pytest.mark.parametrize("checkpointing", quick(["none", "non-reentrant", "reentrant"], "none", "non-reentrant"))
def test_no_strength_is_plain_trl_bit_for_bit(run, checkpointing):
    settings = dict(gradient_accumulation_steps=2, gradient_checkpointing=checkpointing != "none")
    settings["gradient_checkpointing_kwargs"] = {"use_reentrant": checkpointing == "reentrant"}
    plain = weights(run(None, cls=trl.SFTTrainer, **settings).model)
    for noise in ("none", {"name": "neft_uniform", "alpha": 0}, {"name": "token_relative", "rho": 0}):
        assert same(weights(run(noise, **settings).model), plain), noise
    assert not same(weights(run("neft_uniform", **settings).model), plain)


@pytest.mark.cell("Adapters", "none (all weights)")
@pytest.mark.cell("Trainers", "SFT")
def test_noise_is_logged_at_its_nominal_size(run):
    alpha = {"schedule": "linear", "start": 8, "end": 4}
    log = [line for line in run({"name": "neft_uniform", "alpha": alpha}).state.log_history if "loss" in line]
    assert [line["noise/alpha"] for line in log] == [8, 7, 6, 5]
    for line in log:
        # Documents of 10 to 40 tokens, 32 wide: alpha / sqrt(3 n D).
        assert (
            line["noise/alpha"] / (3 * 45 * 32) ** 0.5 < line["noise/rms"] < line["noise/alpha"] / (3 * 8 * 32) ** 0.5
        )
        assert -30 < line["noise/snr_db"] < 0


def test_padded_and_padding_free_train_alike(run):
    padded = weights(run("neft_uniform").model)
    flat = weights(run("neft_uniform", padding_free=True, max_length=None).model)
    assert apart(padded, flat) < 1e-5 < apart(padded, weights(run("none").model))


@pytest.mark.parametrize("noise", ["neft_uniform", "neft_sphere", "symnoise"])
def test_a_split_of_the_batch_changes_nothing(run, noise):
    whole, *splits = (
        weights(run(noise, per_device_train_batch_size=size, gradient_accumulation_steps=4 // size).model)
        for size in (4, 2, 1)
    )
    assert max(apart(whole, split) for split in splits) < 1e-4


@pytest.mark.cell("Faults", "a run that is resumed ends as one that was not")
@pytest.mark.parametrize("noise", ["neft_scheduled", "symnoise"])
def test_a_resumed_run_equals_an_uninterrupted_one(run, config, llama, records, tokenizer, tmp_path, noise):
    whole = run(noise, save_strategy="steps", save_steps=2, output_dir=str(tmp_path / "run"))
    model = llama(seed=1)
    args = config(save_strategy="steps", save_steps=2, output_dir=str(tmp_path / "run"))
    again = SFTTrainer(model, args=args, train_dataset=records, processing_class=tokenizer, noise=noise)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert same(weights(again.model), weights(whole.model))
    losses = [[line["loss"] for line in t.state.log_history if "loss" in line] for t in (whole, again)]
    assert losses[0] == losses[1]


class Watch(TrainerCallback):
    """Compares the model, in train mode, with a clean copy after every step; generates as TRL's callbacks do."""

    def __init__(self):
        self.equal = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        clean = copy.deepcopy(model)
        for module in clean.modules():
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()
        ids = torch.tensor([[5, 6, 7, 8]])
        assert model.training
        with torch.no_grad():
            self.equal.append(torch.equal(model(ids).logits, clean.train()(ids).logits))
        self.equal.append(torch.equal(model(ids).logits, clean(ids).logits))
        told = dict(max_new_tokens=4, do_sample=False, pad_token_id=0)
        self.equal.append(torch.equal(model.generate(ids, **told), clean.generate(ids, **told)))


@pytest.mark.cell("The clean model", "scoring and generation in train mode")
@pytest.mark.parametrize("noise", ["neft_uniform", "symnoise"])
def test_generation_and_other_passes_in_train_mode_are_clean(run, noise):
    watch = Watch()
    run({"name": noise, "alpha": 50}, callbacks=[watch])
    assert len(watch.equal) == 12 and all(watch.equal)


@pytest.mark.cell("The clean model", "evaluation, SFT")
def test_evaluation_is_that_of_the_clean_model(run, llama, config, records, tokenizer):
    noisy = run({"name": "neft_uniform", "alpha": 50}, eval_strategy="steps", eval_steps=4)
    inside = next(line["eval_loss"] for line in noisy.state.log_history if "eval_loss" in line)
    args = config()
    plain = trl.SFTTrainer(
        llama(), args=args, train_dataset=records, eval_dataset=records.select(range(8)), processing_class=tokenizer
    )
    plain.model.load_state_dict(noisy.model.state_dict())
    assert plain.evaluate()["eval_loss"] == inside


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.cell("Faults", "deepcopy, pickle, save_pretrained")
def test_nothing_is_left_on_the_model(run, tmp_path):
    model = run("neft_uniform").model
    assert hooks(model) == 0
    assert pickle.loads(pickle.dumps(copy.deepcopy(model).state_dict())).keys() == model.state_dict().keys()
    model.save_pretrained(tmp_path / "saved")


class Stop(TrainerCallback):
    def __init__(self, error):
        self.error = error

    def on_step_end(self, args, state, control, model=None, **kwargs):
        raise self.error


@pytest.mark.cell("Mistakes of neftune_noise_alpha", "hooks that stay after an exception, and stack")
@pytest.mark.cell("Faults", "exception or Ctrl-C between two steps")
@pytest.mark.parametrize("error", [RuntimeError("stop"), pytest.param(KeyboardInterrupt(), marks=pytest.mark.slow)])
def test_an_exception_leaves_no_hook_and_a_second_run_works(llama, config, records, tokenizer, error):
    model, plain = llama(), llama()
    with pytest.raises(type(error)):
        train(llama, config, records, tokenizer, "neft_uniform", callbacks=[Stop(error)], model=model)
    assert hooks(model) == 0
    plain.load_state_dict(model.state_dict())
    again, reference = (train(llama, config, records, tokenizer, "neft_uniform", model=m) for m in (model, plain))
    assert same(weights(again.model), weights(reference.model))


@pytest.mark.cell("Mistakes of neftune_noise_alpha", "two trainers on one model")
@pytest.mark.cell("Faults", "two trainers on one model")
def test_two_trainers_on_one_model_do_not_stack(llama, config, records, tokenizer):
    model, plain = llama(), llama()
    settings = dict(train_dataset=records, processing_class=tokenizer, noise="neft_uniform")
    SFTTrainer(model, args=config(), **settings)
    second = SFTTrainer(model, args=config(), **settings)
    second.train()
    only = SFTTrainer(plain, args=config(), **settings)
    only.train()
    assert same(weights(model), weights(plain))


@pytest.mark.cell("Mistakes of neftune_noise_alpha", "a global random state that noise moves")
def test_noise_leaves_the_global_random_state_alone(llama, config, records, tokenizer):
    def state_after(noise):
        train(llama, config, records, tokenizer, noise, model=llama(attention_dropout=0.3))
        return torch.get_rng_state()

    assert torch.equal(state_after("none"), state_after("neft_uniform"))
    assert torch.equal(state_after("none"), state_after("symnoise"))


@pytest.mark.cell("The clean model", "token counts and metrics where a step has several passes")
def test_tokens_and_metrics_are_those_of_one_pass(run):
    lines = [run(noise).state.log_history[3] for noise in ("none", {"name": "symnoise", "alpha": 0})]
    assert lines[0]["num_tokens"] == lines[1]["num_tokens"] > 0
    for name in ("loss", "entropy", "mean_token_accuracy"):
        assert lines[0][name] == pytest.approx(lines[1][name], rel=1e-6)


@pytest.mark.later
@pytest.mark.cell("Precision", "bf16 autocast")
def test_label_smoothing_and_bf16_train(run):
    for settings in (dict(label_smoothing_factor=0.1), dict(bf16=True)):
        log = run("neft_uniform", **settings).state.log_history
        assert log[0]["noise/rms"] > 0 and log[3]["loss"] < log[0]["loss"] + 1


@pytest.mark.cell("Precision", "a model of bf16 weights trains")
def test_a_bf16_model_keeps_its_dtype(llama, config, records, tokenizer):
    model = train(llama, config, records, tokenizer, "neft_uniform", model=llama().to(torch.bfloat16)).model
    assert {value.dtype for value in model.state_dict().values()} == {torch.bfloat16}


def test_a_strategy_object_and_a_config_are_accepted(llama, config, records, tokenizer):
    settings = dict(train_dataset=records, processing_class=tokenizer)
    assert SFTTrainer(llama(), args=config(noise="symnoise"), **settings).strategy == make("symnoise")
    assert SFTTrainer(llama(), args=config(), noise=make("symnoise"), **settings).strategy.name == "symnoise"
    assert SFTTrainer(llama(), args=config(noise="symnoise"), noise="symnoise", **settings).strategy.name == "symnoise"
    assert SFTTrainer(llama(), args=config(), **settings).strategy.name == "none"
    assert SFTTrainer(llama(), args=config(noise=False), **settings).strategy.name == "none"


@pytest.mark.parametrize(
    ("noise", "settings", "message"),
    [
        ("neft_unifrom", {}, "did you mean neft_uniform"),
        ({"name": "neft_uniform", "alpha": -1}, {}, "neft_uniform: alpha must be a finite number >= 0, got -1.0"),
        ("neft_uniform", {"neftune_noise_alpha": 5.0}, "neftune_noise_alpha must be unset .* got 5.0"),
        ("neft_uniform", {"noise": "symnoise"}, "given twice: 'neft_uniform' as an argument and 'symnoise' in args"),
        (
            "symnoise",
            {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
            "use_reentrant must be false with symnoise",
        ),
    ],
)
def test_bad_input_is_refused_before_training(llama, config, records, tokenizer, noise, settings, message):
    with pytest.raises(NoiseError, match=message):
        SFTTrainer(llama(), args=config(**settings), train_dataset=records, processing_class=tokenizer, noise=noise)
