"""TRL's other trainers and transformers' own: noise in the pass that trains, and a clean model everywhere else."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest
import torch
import transformers
import trl
from datasets import Dataset
from peft import LoraConfig
from short_run import short_run
from small_models import apart, same, weights
from transformers import (
    DataCollatorForLanguageModeling,
    LlamaConfig,
    LlamaForSequenceClassification,
    TrainingArguments,
)

from neft_zoo import DPOTrainer, GRPOTrainer, KTOTrainer, NoiseError, RewardTrainer, RLOOTrainer, Trainer

PAIRS = Dataset.from_list(
    [
        {"prompt": f"Question {i}", "chosen": " yes it is" + " so" * i, "rejected": " no" + " never" * (i % 3)}
        for i in range(8)
    ]
)
RATED = Dataset.from_list(
    [{"prompt": f"Question {i}", "completion": " yes" + " it" * i, "label": i % 2 == 0} for i in range(8)]
)
PROMPTS = PAIRS.select_columns("prompt")
TEXT = Dataset.from_list([{"input_ids": list(range(5, 12 + i))} for i in range(8)])
LORA = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
LOUD = {"name": "neft_uniform", "alpha": 20}


def longest(completions, **_):
    return [float(len(text)) for text in completions]


def judge(tokenizer):
    torch.manual_seed(0)
    numbers = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    config = LlamaConfig(
        vocab_size=len(tokenizer), num_labels=1, pad_token_id=tokenizer.pad_token_id, num_key_value_heads=2, **numbers
    )
    return LlamaForSequenceClassification(config)


@dataclass(frozen=True)
class Kind:
    """A trainer, and what it needs to train: its arguments' class and data, and what else it is given.

    `model` and `collator` make theirs of the tokenizer, where the tiny Llama and the trainer's own do not do.
    """

    trainer: type[transformers.Trainer]
    config: type[TrainingArguments]
    data: Dataset
    settings: dict[str, int] = field(default_factory=dict)
    given: dict[str, object] = field(default_factory=dict)
    model: Callable | None = None
    collator: Callable | None = None

    @property
    def stock(self):
        """The class of transformers or TRL that ours is made of."""
        return next(cls for cls in self.trainer.__mro__ if not cls.__module__.startswith("neft_zoo"))

    @property
    def generates(self):
        return "num_generations" in self.settings


ONLINE = dict(settings=dict(num_generations=2, max_completion_length=4), given={"reward_funcs": longest})
KINDS = {
    "DPO": Kind(DPOTrainer, trl.DPOConfig, PAIRS),
    "KTO": Kind(KTOTrainer, trl.KTOConfig, RATED),
    "Reward": Kind(RewardTrainer, trl.RewardConfig, PAIRS, model=judge),
    "GRPO": Kind(GRPOTrainer, trl.GRPOConfig, PROMPTS, **ONLINE),
    "RLOO": Kind(RLOOTrainer, trl.RLOOConfig, PROMPTS, **ONLINE),
    "transformers.Trainer": Kind(
        Trainer, TrainingArguments, TEXT, collator=partial(DataCollatorForLanguageModeling, mlm=False)
    ),
}


@pytest.fixture
def build(llama, tokenizer, tmp_path):
    """Return a maker of trainers: two steps of four records."""

    def make(kind, cls=None, model=None, peft=None, settings=None, evaluated=False, **arguments):
        known = KINDS[kind]
        arguments |= known.given | ({"eval_dataset": known.data.select(range(4))} if evaluated else {})
        arguments |= {} if peft is None else {"peft_config": peft}
        arguments |= {} if known.collator is None else {"data_collator": known.collator(tokenizer)}
        if model is None:
            llama().save_pretrained(tmp_path / "model")  # a reference model is loaded from where the policy was
            tokenizer.save_pretrained(tmp_path / "model")
            model = llama() if known.model is None else known.model(tokenizer)
            model.config._name_or_path = str(tmp_path / "model")
        return (cls or known.trainer)(
            model,
            args=known.config(**short_run(tmp_path / kind, **(settings or {})), **known.settings),
            train_dataset=known.data,
            processing_class=tokenizer,
            **arguments,
        )

    return make


class Watch:
    """Records, for every forward pass, whether it carries gradients and the largest noise it was given."""

    def __init__(self, model):
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.seen, self.ids, self.table = [], None, base.get_input_embeddings()
        base.get_input_embeddings().register_forward_pre_hook(self.read_ids)
        base.model.layers[0].register_forward_pre_hook(self.read_hidden, with_kwargs=True)

    def read_ids(self, module, args):
        self.ids = args[0]

    def read_hidden(self, module, args, kwargs):
        added = args[0].detach() - self.table.weight[self.ids].detach()
        self.seen.append((torch.is_grad_enabled(), self.ids.shape[1], added.abs().max().item()))

    def noise(self, gradients):
        return [largest for graded, _, largest in self.seen if graded == gradients]


@pytest.mark.cell("Mistakes of neftune_noise_alpha", "GRPO, RLOO: noise on decoded tokens")
@pytest.mark.cell("The clean model", "passes without gradients, {kind}: references, old log-probabilities, decoding")
@pytest.mark.cell("Trainers", "{kind}")
@pytest.mark.parametrize("kind", KINDS)
def test_only_the_pass_that_trains_is_noisy(build, kind):
    trainer = build(kind, noise=LOUD)
    watch = Watch(trainer.model)
    trainer.train()
    assert len(watch.noise(True)) >= 2 and min(watch.noise(True)) > 0.1
    assert all(largest == 0 for largest in watch.noise(False))
    if KINDS[kind].generates:
        assert any(length == 1 for _, length, _ in watch.seen), "no token was decoded"
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert all(math.isfinite(line["loss"]) and line["noise/alpha"] == 20 for line in lines)
    # Documents of 3 to 30 tokens, 32 wide.
    assert all(20 / (3 * 30 * 32) ** 0.5 < line["noise/rms"] < 20 / (3 * 3 * 32) ** 0.5 for line in lines)
    assert not any(m._forward_hooks for m in trainer.model.modules() if m is not trainer.model.model.embed_tokens)


@pytest.mark.cell("Trainers", "{kind}")
@pytest.mark.parametrize("kind", KINDS)
def test_no_strength_is_the_plain_trainer_bit_for_bit(build, kind):
    plain, ours, noisy = (
        build(kind, cls=KINDS[kind].stock),
        build(kind, noise={**LOUD, "alpha": 0}),
        build(kind, noise=LOUD),
    )
    for trainer in (plain, ours, noisy):
        torch.manual_seed(0)  # of generation
        trainer.train()
    assert same(weights(plain.model), weights(ours.model))
    assert not same(weights(plain.model), weights(noisy.model))


@pytest.mark.cell("The clean model", "evaluation, {kind}")
@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_in_a_noisy_run_is_that_of_the_stock_trainer(build, kind):
    settings = dict(eval_strategy="steps", eval_steps=2, per_device_eval_batch_size=4)
    if KINDS[kind].generates:
        settings["temperature"] = 1e-3  # samples, and so the answers, are those of the largest logits
    noisy = build(kind, noise=LOUD, settings=settings, evaluated=True)
    noisy.train()
    inside = next(line for line in noisy.state.log_history if "eval_loss" in line)
    plain = build(kind, cls=KINDS[kind].stock, settings=settings, evaluated=True)
    plain.model.load_state_dict(noisy.model.state_dict())
    outside = plain.evaluate()
    # What is measured in seconds, or counted since the beginning, differs.
    compared = [key for key in outside if not any(word in key for word in ("time", "second", "tokens", "epoch"))]
    assert "eval_loss" in compared and len(compared) >= (1 if KINDS[kind].stock is transformers.Trainer else 3)
    assert [inside[key] for key in compared] == [outside[key] for key in compared]


@pytest.mark.cell("The clean model", "completion logging (TRL's LogCompletionsCallback)")
def test_completions_are_logged_from_the_clean_model(build):
    trainer = build("DPO", noise=LOUD, evaluated=True)
    watch = Watch(trainer.model)
    greedy = transformers.GenerationConfig(max_new_tokens=4, do_sample=False, pad_token_id=1)
    trainer.add_callback(trl.LogCompletionsCallback(trainer, greedy, freq=1))
    trainer.train()
    decoded = [largest for graded, length, largest in watch.seen if length == 1]
    assert len(decoded) >= 2 * 3 and not any(decoded)
    assert min(watch.noise(True)) > 0.1 and not any(watch.noise(False))


def first(trainer, name):
    trainer.train()
    return trainer.state.log_history[0][name]


@pytest.mark.cell("Mistakes of neftune_noise_alpha", "DPO: a reference with other noise than the policy")
@pytest.mark.cell("Trainers", "DPO, reference='same': the first loss is ln 2")
@pytest.mark.parametrize("peft", [LORA, None])
def test_dpo_starts_at_ln_2_when_the_reference_sees_the_same_noise(build, peft):
    assert first(build("DPO", peft=peft, noise=LOUD, reference="same"), "loss") == pytest.approx(math.log(2), abs=1e-5)
    assert abs(first(build("DPO", peft=peft, noise=LOUD), "loss") - math.log(2)) > 1e-4
    assert first(build("DPO", peft=peft, noise="none"), "loss") == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.cell("Mistakes of neftune_noise_alpha", "KTO: a divergence between equal models")
@pytest.mark.cell("Trainers", "KTO, reference='{reference}': the first kl is 0")
@pytest.mark.parametrize("reference", ["clean", "same"])
def test_kto_starts_without_divergence(build, reference):
    assert first(build("KTO", peft=LORA, noise=LOUD, reference=reference), "kl") == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    "noise", ["symnoise", "freelb", *(pytest.param(name, marks=pytest.mark.later) for name in ("r3f", "cutoff_token"))]
)
def test_dpo_trains_in_several_passes(build, noise):
    trainer = build("DPO", noise=noise, settings=dict(gradient_accumulation_steps=2))
    before = weights(trainer.model)
    trainer.train()
    assert not same(weights(trainer.model), before)
    assert all(math.isfinite(line["loss"]) for line in trainer.state.log_history if "loss" in line)


def test_two_passes_without_noise_are_one(build):
    one, two = build("DPO", noise="none"), build("DPO", noise={"name": "symnoise", "alpha": 0})
    one.train(), two.train()
    assert apart(weights(one.model), weights(two.model)) < 1e-5
    assert one.state.log_history[1]["num_tokens"] == two.state.log_history[1]["num_tokens"]


@pytest.mark.cell("Trainers", "{kind}, {what}")
@pytest.mark.parametrize(
    ("kind", "what", "arguments", "message"),
    [
        (
            "DPO",
            "token ids edited",
            {"noise": "masked_thought"},
            "must not edit token ids with DPOTrainer, got 'masked_thought'",
        ),
        (
            "DPO",
            "an unknown reference",
            {"noise": LOUD, "reference": "noisy"},
            "reference must be 'clean' or 'same', got 'noisy'",
        ),
        (
            "DPO",
            "several passes and reference='same'",
            {"noise": "symnoise", "reference": "same"},
            "a strategy of one pass, got DPOTrainer and 'symnoise'",
        ),
        (
            "transformers.Trainer",
            "reference='same'",
            {"noise": LOUD, "reference": "same"},
            "inside the loss .* got Trainer",
        ),
        ("GRPO", "reference='same'", {"noise": LOUD, "reference": "same"}, "inside the loss .* got GRPOTrainer"),
        ("RLOO", "reference='same'", {"noise": LOUD, "reference": "same"}, "inside the loss .* got RLOOTrainer"),
        ("Reward", "reference='same'", {"noise": LOUD, "reference": "same"}, "inside the loss .* got RewardTrainer"),
        pytest.param(
            "DPO",
            "precomputed reference log-probabilities and reference='same'",
            {"noise": LOUD, "reference": "same", "settings": {"precompute_ref_log_probs": True}},
            "precompute_ref_log_probs must be false with reference='same'",
            marks=pytest.mark.later,
        ),
    ],
)
def test_what_cannot_go_together_is_refused(build, refused, kind, what, arguments, message):
    with pytest.raises(NoiseError, match=message) as caught:
        build(kind, **arguments)
    refused(caught)
