"""noisy_tune: every trainable matrix is shaken once, before training."""

import math

import pytest
import torch
from scipy import stats
from small_models import moved, same, weights, with_lora
from transformers import Trainer, TrainerCallback, TrainingArguments

from neft_zoo import NoiseError, SFTTrainer, attach, make
from neft_zoo.errors import NoiseWarning
from neft_zoo.passes.weight_noise import OnceRelative
from neft_zoo.training.mixin import NoiseMixin


def trained(llama, config, records, tokenizer, noise, model=None, callbacks=(), resume=None, **settings):
    trainer = SFTTrainer(
        model or llama(),
        args=config(**settings),
        train_dataset=records,
        processing_class=tokenizer,
        noise=noise,
        callbacks=list(callbacks),
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.parametrize("strength", [0.15, 0.6])
def test_noisy_tune_adds_uniform_noise_in_proportion_to_each_matrix(llama, strength):
    model = llama(hidden_size=128, tie_word_embeddings=False)
    model.model.layers[0].mlp.up_proj.weight.data *= 30
    frozen = "model.layers.1.mlp.down_proj.weight"
    model.get_parameter(frozen).requires_grad_(False)
    before = weights(model)
    attach(model, {"name": "noisy_tune", "strength": strength}, total_steps=1).begin()
    added = moved(before, weights(model))
    assert set(added) == {name for name, p in model.named_parameters() if p.ndim > 1 and name != frozen}
    draws = [added[name] / before[name].double().numpy().std(ddof=1) / (strength / 2) for name in added]
    for z in draws:
        assert stats.kstest(z.ravel(), stats.uniform(-1, 2).cdf).pvalue > 1e-6 and abs(z).max() < 1.001
    assert abs(stats.pearsonr(draws[1].ravel()[:8192], draws[2].ravel()[:8192]).statistic) < 6 / math.sqrt(8192)


def test_a_loop_that_forgets_to_begin_is_warned_once(llama, recwarn):
    ids = torch.arange(5, 11)[None]
    batch = {"input_ids": ids, "labels": ids}
    for begins, first, count in ((True, None, 0), (False, 3, 0), (False, None, 1)):
        handle = attach(llama().train(), "noisy_tune", total_steps=9)
        if begins:
            handle.begin()
        recwarn.clear()
        handle.loss(batch, step=first)
        handle.loss(batch)
        said = [str(each.message) for each in recwarn if each.category is NoiseWarning]
        assert len(said) == count and all("call begin() before step 0" in each for each in said)


class First(TrainerCallback):
    """Keeps the weights that the first step begins with."""

    def __init__(self):
        self.seen = []

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.seen.append(weights(model))


def test_noisy_tune_happens_once_before_the_first_step_and_not_on_resume(llama, config, records, tokenizer, tmp_path):
    watch, again = First(), First()
    given = (llama, config, records, tokenizer, "noisy_tune")
    whole = trained(*given, callbacks=[watch], save_strategy="steps", save_steps=2)
    shaken = llama()
    attach(shaken, "noisy_tune", total_steps=1, seed=whole.args.seed).begin()
    assert same(watch.seen[0], weights(shaken)) and not same(watch.seen[0], weights(llama()))
    plain = trained(*given[:4], "none", model=shaken, output_dir=str(tmp_path / "plain"))
    assert same(weights(plain.model), weights(whole.model)), "every later step is plain training"
    checkpoint = str(tmp_path / "out" / "checkpoint-2")
    resumed = trained(*given, callbacks=[again], save_strategy="steps", save_steps=2, resume=checkpoint)
    assert same(again.seen[0], watch.seen[2]) and same(weights(resumed.model), weights(whole.model))


def test_noisy_tune_shakes_nothing_on_resume(llama, config, records, tokenizer, tmp_path, monkeypatch):
    shaken = []
    monkeypatch.setattr(OnceRelative, "begin", lambda self, model, key: shaken.append(model))
    given = (llama, config, records, tokenizer, "noisy_tune")
    first = trained(*given, save_strategy="steps", save_steps=2)
    trained(*given, save_strategy="steps", save_steps=2, resume=str(tmp_path / "out" / "checkpoint-2"))
    assert shaken == [first.model]


def test_noisy_tune_shakes_the_fresh_model_of_model_init(llama, tmp_path):
    class Plain(NoiseMixin, Trainer):
        pass

    args = TrainingArguments(str(tmp_path), max_steps=1, report_to="none", use_cpu=True, save_strategy="no")
    watch, data = First(), [{"input_ids": list(range(5, 13)), "labels": list(range(5, 13))}] * 8
    Plain(args=args, model_init=lambda: llama(), train_dataset=data, noise="noisy_tune", callbacks=[watch]).train()
    shaken = llama()
    attach(shaken, "noisy_tune", total_steps=1, seed=args.seed).begin()
    assert same(watch.seen[0], weights(shaken))


def test_noisy_tune_leaves_a_lora_base_alone(llama):
    model = with_lora(llama())
    before = weights(model)
    attach(model, "noisy_tune", total_steps=1).begin()
    added = moved(before, weights(model))
    assert set(added) == {name for name in before if "lora_" in name}


@pytest.mark.parametrize("strength", [-0.1, float("inf"), "much"])
def test_noisy_tune_refuses_what_is_no_strength(strength):
    with pytest.raises(NoiseError, match="^noisy_tune: strength must be"):
        make({"name": "noisy_tune", "strength": strength})


def test_noisy_tune_needs_something_to_shake(llama, config, records, tokenizer):
    model = llama().requires_grad_(False)
    model.model.norm.weight.requires_grad_(True)
    with pytest.raises(NoiseError, match="must have trainable matrices to add noise to, got none"):
        SFTTrainer(model, args=config(), train_dataset=records, processing_class=tokenizer, noise="noisy_tune")
