"""Compiled training: the noise costs no graph, no break and no recompilation, is there, and is gone in evaluation."""

import os
from dataclasses import dataclass, replace

import pytest
import torch
import trl
from accelerate.state import AcceleratorState, PartialState
from peft import LoraConfig
from selection import quick
from small_models import apart, fitting, weights
from torch._dynamo.utils import counters

from neft_zoo import SFTTrainer, make, registry
from neft_zoo.noise.batch import Batch
from neft_zoo.passes.hooks import ModelHooks

NAMES = [name for name in registry.builtin_names() if name not in ("none", "stm", "visual_noise")]
SINGLE = [name for name in NAMES if make(name).objective.passes == 1]
ADDED = [name for name in SINGLE if make(name).site in ("embeddings", "layers")]
LORA = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
# Mixing takes a batch of several documents.
SETTINGS = {"embed_mix": {"per_device_train_batch_size": 4}, "flat_lora": {"peft": LORA}}
SETTINGS["lora_matrix_dropout"] = SETTINGS["flat_lora"]


@dataclass
class Counts:
    graphs: int
    breaks: int
    frames: int

    @classmethod
    def read(cls):
        frames, breaks = counters["frames"]["ok"], sum(counters["graph_break"].values())
        return cls(counters["stats"]["unique_graphs"], breaks, frames)


@pytest.fixture(autouse=True)
def restored():
    """Forget compiled code, and the environment and state by which transformers asks accelerate to compile."""
    before = dict(os.environ)
    torch._dynamo.reset()
    counters.clear()
    yield
    os.environ.clear()
    os.environ.update(before)
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()


@pytest.fixture
def train(llama, config, records, tokenizer):
    def go(noise, backend="eager", steps=14, peft=None, **settings):
        """Train on batches of one record, hence of many lengths; return trainer and counts."""
        compiled = {"torch_compile": True, "torch_compile_backend": backend} if backend else {}
        settings = {"optim": "sgd", "learning_rate": 0.1, "per_device_train_batch_size": 1, **compiled, **settings}
        args = config(max_steps=steps, **settings)
        data = dict(train_dataset=records, eval_dataset=records.select(range(2)), processing_class=tokenizer)
        extra = {"peft_config": peft, **({} if noise is None else {"noise": noise})}
        model = llama(num_hidden_layers=1)
        trainer = (trl.SFTTrainer if noise is None else SFTTrainer)(model, args=args, **data, **extra)
        torch._dynamo.reset()
        counters.clear()
        trainer.train()
        counts = Counts.read()
        restore()
        return trainer, counts

    def restore():
        for name in [name for name in os.environ if name.startswith("ACCELERATE_DYNAMO")]:
            del os.environ[name]

    return go


@pytest.mark.cell("torch.compile", "SFTTrainer, a schedule of neft_uniform: graphs, breaks and frames of plain TRL")
def test_noise_costs_no_graph_and_evaluation_is_clean(train):
    noise = {"name": "neft_uniform", "alpha": {"schedule": "linear", "start": 20, "end": 10}}
    plain, expected = train(None)
    noisy, counts = train(noise)
    assert counts == expected and counts.graphs > 1
    assert len({line["noise/rms"] for line in noisy.state.log_history if "noise/rms" in line}) == 14
    eager, none = train(noise, backend=None)
    assert none.graphs == 0
    assert apart(weights(noisy.model), weights(eager.model)) < 1e-4 < apart(weights(plain.model), weights(eager.model))
    assert noisy.evaluate()["eval_loss"] == pytest.approx(eager.evaluate()["eval_loss"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.cell("torch.compile", "{name}: graphs, breaks and recompilations of plain TRL")
def test_no_single_pass_costs_a_graph(train, name):
    settings = SETTINGS.get(name, {})
    plain, expected = train(None, **settings)
    noisy, counts = train(fitting(name), **settings)
    # Of the hook that reads embed_mix's logits no graph is made, but its frame and that of what it calls are counted.
    assert replace(counts, frames=counts.frames - 2 * (name == "embed_mix")) == expected and counts.graphs > 1
    eager, _ = train(fitting(name), backend=None, **settings)
    assert apart(weights(noisy.model), weights(eager.model)) < 1e-4 < apart(weights(plain.model), weights(eager.model))
    assert noisy.evaluate()["eval_loss"] == pytest.approx(eager.evaluate()["eval_loss"], abs=1e-5)


def losses(model, run, tap, noise, lengths, backend):
    """Return the losses of one batch per length, under `noise` if there is one, and the sums of their gradients."""
    model.zero_grad()
    compiled = torch.compile(model, backend=backend) if backend else model
    found = []
    for number, length in enumerate(lengths):
        ids = torch.randint(5, 200, (2, length), generator=torch.Generator().manual_seed(number))
        inputs = {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}
        batch = Batch.from_inputs(inputs, key=number, progress=number / len(lengths))
        with tap.open(noise, batch):
            found.append(run(compiled, inputs))
    return found, {name: each.grad.clone() for name, each in model.named_parameters()}


def loss_of(model, inputs):
    loss = model(**inputs).loss
    loss.backward()
    return loss.item()


# Drawn from the embeddings; without them, in the first test; at layers in 16 bits, below.
@pytest.mark.parametrize("name", quick(ADDED, "embedding_dropout"))
@pytest.mark.cell("torch.compile", "{name}: one addition in the graph")
def test_every_added_noise_is_one_addition_in_the_graph(llama, tokenizer, name, dtype=torch.float32):
    from neft_zoo.passes.preparation import prepare

    lengths = (7, 12, 9, 15)
    model = llama(num_hidden_layers=1).to(dtype)
    noise = prepare(make(fitting(name)).noise, model, lambda: torch.arange(len(tokenizer)))
    layers = getattr(noise, "layers", False)
    tap = ModelHooks(model, layers=layers, compiled=True)
    plain, _ = losses(model, loss_of, tap, None, lengths, "eager")
    expected = Counts.read()
    torch._dynamo.reset()
    counters.clear()
    noisy, slopes = losses(model, loss_of, tap, noise, lengths, "eager")
    assert Counts.read() == expected and expected.breaks == 0
    tap.detach()
    eager, expected = losses(model, loss_of, ModelHooks(model, layers=layers), noise, lengths, None)
    assert noisy == pytest.approx(eager, abs=1e-5) and noisy != plain
    assert apart(slopes, expected) < 1e-5


@pytest.mark.slow
def test_on_layers_of_16_bits_it_is_one_rounded_addition(llama, tokenizer):
    test_every_added_noise_is_one_addition_in_the_graph(llama, tokenizer, "hype", torch.bfloat16)


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["symnoise", "r3f", "freelb", "lnsr", "relative hype"])
@pytest.mark.cell("torch.compile", "{noise}: as eagerly, with graph breaks")
def test_what_is_not_one_addition_still_trains_as_it_does_eagerly(train, noise):
    noise = {"name": "hype", "size": 0.1, "relative": True} if noise == "relative hype" else noise
    compiled, counts = train(noise, steps=3)
    eager, _ = train(noise, backend=None, steps=3)
    assert counts.graphs > 0 and apart(weights(compiled.model), weights(eager.model)) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("noise", [{"name": "hype", "size": 0.2}, {"name": "embedding_dropout", "p": 0.3}], ids=str)
def test_checkpointing_costs_no_further_graph_and_changes_nothing(train, noise):
    _, expected = train(None, steps=3, gradient_checkpointing=True)
    compiled, counts = train(noise, steps=3, gradient_checkpointing=True)
    eager, _ = train(noise, backend=None, steps=3, gradient_checkpointing=False)
    assert counts == expected and apart(weights(compiled.model), weights(eager.model)) < 1e-6


@pytest.mark.slow
@pytest.mark.cell("torch.compile", "inductor")
def test_inductor_trains_as_eager_does(train):
    noise = {"name": "neft_uniform", "alpha": 20}
    plain, expected = train(None, backend="inductor", steps=4)
    compiled, counts = train(noise, backend="inductor", steps=4)
    eager, _ = train(noise, backend=None, steps=4)
    assert counts == expected
    assert (
        apart(weights(compiled.model), weights(eager.model)) < 1e-4 < apart(weights(plain.model), weights(eager.model))
    )


def test_an_evaluation_before_training_does_not_hide_the_noise(train):
    settings = dict(steps=2, eval_strategy="steps", eval_steps=1, eval_on_start=True)
    compiled, _ = train({"name": "neft_uniform", "alpha": 20}, **settings)
    eager, _ = train({"name": "neft_uniform", "alpha": 20}, backend=None, **settings)
    log = [[line["eval_loss"] for line in t.state.log_history if "eval_loss" in line] for t in (compiled, eager)]
    assert log[0] == pytest.approx(log[1], abs=1e-5) and len(log[0]) == 3
    assert apart(weights(compiled.model), weights(eager.model)) < 1e-4
