"""Classifiers, spans, masked models and sentence encoders through `enable` and `NoiseCallback`."""

import math

import pytest
import torch
import transformers
from datasets import Dataset
from short_run import short_run
from small_models import same, weights
from tasks import TASKS, model_of

from neft_zoo import NoiseCallback, NoiseError, enable

LOUD = {"name": "neft_uniform", "alpha": 20}
WIDTH = 32
RECORDED = [task for task in TASKS if task not in ("pretraining", "choices")]  # a record has one text and one label


@pytest.fixture
def build(tmp_path):
    """Return a maker of plain trainers of a task: two steps of four records."""

    def make(task, model=None, callbacks=None):
        records = [
            {"input_ids": list(range(5, 5 + 10 - i % 3)), "attention_mask": [1] * (10 - i % 3)} for i in range(8)
        ]
        for index, record in enumerate(records):
            length = len(record["input_ids"])
            record |= {
                "tokens": {"labels": [token % 3 for token in range(length)]},
                "masked": {"labels": [7 if place % 3 == 0 else -100 for place in range(length)]},
                "span": {"start_positions": 1, "end_positions": 4},
                "regression": {"labels": float(index)},
            }.get(task, {"labels": index % 3})
        args = transformers.TrainingArguments(**short_run(tmp_path / "out"))
        return transformers.Trainer(
            model or model_of(task), args=args, train_dataset=Dataset.from_list(records), data_collator=padded,
            callbacks=callbacks,
        )  # fmt: skip

    return make


def padded(records):
    """Return a batch, padded on the right."""
    longest = max(len(record["input_ids"]) for record in records)

    def row(name, record):
        value, fill = record[name], -100 if name == "labels" else 0
        return value + [fill] * (longest - len(value)) if isinstance(value, list) else value

    return {name: torch.tensor([row(name, record) for record in records]) for name in records[0]}


@pytest.mark.cell("Trainers", "transformers.Trainer given to enable(): {task}")
@pytest.mark.parametrize("task", RECORDED)
def test_every_task_trains_through_enable_and_a_callback_alike(build, task):
    enabled, called, plain = enable(build(task), LOUD), build(task, callbacks=[NoiseCallback(LOUD)]), build(task)
    for trainer in (enabled, called, plain):
        transformers.set_seed(0)  # of dropout
        trainer.train()
    assert same(weights(enabled.model), weights(called.model)) and not same(
        weights(enabled.model), weights(plain.model)
    )
    sizes = [line["noise/rms"] for line in enabled.state.log_history if "loss" in line]
    assert all(
        20 / (3 * 10 * WIDTH) ** 0.5 < size * 1.05 and size < 1.05 * 20 / (3 * 8 * WIDTH) ** 0.5 for size in sizes
    )


@pytest.mark.parametrize("task", RECORDED)
def test_a_divergence_is_of_classes_or_refused_in_step_1(build, task):
    trainer = build(task)
    before = weights(trainer.model)
    if task == "regression":
        with pytest.raises(NoiseError, match="chooses one of several classes"):
            enable(trainer, "r3f")
        assert type(trainer) is transformers.Trainer
        return
    enable(trainer, "r3f").train()
    assert not same(weights(trainer.model), before)
    assert all(math.isfinite(line["loss"]) for line in trainer.state.log_history if "loss" in line)


@pytest.fixture
def encoder(tokenizer, tmp_path):
    """Return a maker of equal sentence encoders around a tiny BERT."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer import modules

    def make():
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=1,
        )  # fmt: skip
        folder = tmp_path / "bert"
        transformers.BertModel(config).save_pretrained(folder), tokenizer.save_pretrained(folder)
        words = modules.Transformer(str(folder))
        return sentence_transformers.SentenceTransformer(modules=[words, modules.Pooling(WIDTH)], device="cpu")

    return make


@pytest.fixture
def contrastive(encoder, tmp_path):
    """Return a maker of sentence-transformers' trainers whose loss calls the model on each sentence of a pair."""
    import sentence_transformers
    from sentence_transformers import losses

    pairs = [{"anchor": f"question {i}" + " why" * i, "positive": "answer" + " so" * i} for i in range(8)]

    def make(loss="MultipleNegativesRankingLoss", callbacks=None):
        model = encoder()
        args = sentence_transformers.SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path / "out"), max_steps=2, per_device_train_batch_size=4, learning_rate=1e-2,
            logging_steps=1, save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        return sentence_transformers.SentenceTransformerTrainer(
            model=model, args=args, train_dataset=Dataset.from_list(pairs), loss=getattr(losses, loss)(model),
            callbacks=callbacks,
        )  # fmt: skip

    return make


def words_of(model):
    return next(module for module in model.modules() if isinstance(module, transformers.BertModel))


@pytest.mark.cell("Trainers", "sentence-transformers, a contrastive loss")
def test_every_call_of_a_contrastive_loss_has_noise_of_its_own_size(contrastive):
    trainer = enable(contrastive(), LOUD)
    bert, ratios, seen = words_of(trainer.model), [], {}
    plain = []
    bert.embeddings.word_embeddings.register_forward_pre_hook(lambda module, args: seen.update(ids=args[0]))
    bert.embeddings.LayerNorm.register_forward_pre_hook(lambda module, args: plain.append(args[0].detach()))

    def measure(module, args, output):
        clean = module.weight[seen["ids"]].detach()
        for row, ids in zip(output.detach() - clean, seen["ids"], strict=True):
            real = ids != 1
            paper = 20 / math.sqrt(real.sum() * WIDTH) / math.sqrt(3)
            ratios.append((row[real].square().mean().sqrt() / paper).item())
            assert not row[~real].any(), "padding has noise"

    trainer.add_callback(Measured(bert.embeddings.word_embeddings, measure))
    trainer.train()
    mean = math.sqrt(sum(ratio**2 for ratio in ratios) / len(ratios))
    assert len(ratios) == 2 * 2 * 4 and mean == pytest.approx(1, abs=0.05), ratios
    assert len(plain) == 2 * 2


class Measured(transformers.TrainerCallback):
    """Sets a hook after those of the noise."""

    def __init__(self, module, hook):
        self.module, self.hook = module, hook

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.module.register_forward_hook(self.hook)


@pytest.mark.cell("Trainers", "sentence-transformers, NoiseCallback")
def test_a_callback_is_enable_for_a_contrastive_loss(contrastive):
    enabled, called, plain = enable(contrastive(), LOUD), contrastive(callbacks=[NoiseCallback(LOUD)]), contrastive()
    for trainer in (enabled, called, plain):
        trainer.train()
    assert same(weights(enabled.model), weights(called.model)) and not same(
        weights(enabled.model), weights(plain.model)
    )


@pytest.mark.cell("Trainers", "sentence-transformers, {what}")
@pytest.mark.parametrize(
    ("what", "loss", "noise", "message"),
    [
        ("several passes", "MultipleNegativesRankingLoss", "symnoise", "the model once a pass with symnoise"),
        ("cached gradients", "CachedMultipleNegativesRankingLoss", "neft_uniform", "input_ids, which noise enters by"),
    ],
)
def test_what_cannot_be_is_refused_before_the_optimizer_steps(contrastive, refused, what, loss, noise, message):
    trainer = enable(contrastive(loss), noise)
    before = weights(trainer.model)
    with pytest.raises(NoiseError, match=message) as caught:
        trainer.train()
    refused(caught)
    assert same(weights(trainer.model), before)


def test_a_callback_with_cached_gradients_is_refused_before_the_optimizer_steps(contrastive):
    trainer = contrastive("CachedMultipleNegativesRankingLoss", callbacks=[NoiseCallback(LOUD)])
    before = weights(trainer.model)
    with pytest.raises(NoiseError, match="for a callback's noise of neft_uniform to reach it"):
        trainer.train()
    assert same(weights(trainer.model), before)
