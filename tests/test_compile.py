"""Compiled training: the noise costs no graph, no break and no recompilation, is there, and is gone in evaluation."""

import os
from dataclasses import dataclass

import pytest
import torch
import trl
from accelerate.state import AcceleratorState, PartialState
from conftest import apart, fitting, weights
from torch._dynamo.utils import counters

from neft_zoo import SFTTrainer, make, registry
from neft_zoo.batch import Batch
from neft_zoo.objectives import SinglePass
from neft_zoo.rounding import add_rounded
from neft_zoo.tap import Tap

# Dropout and mixing pass gradients to the embeddings: their noise is part of the graph, at the price of breaks.
INSIDE = ("embedding_dropout", "token_dropout", "embed_mix")


def is_added(name):
    """Return whether an entry adds numbers to the embeddings, in one pass."""
    strategy = make(name)
    one_pass = isinstance(strategy.objective, SinglePass) and strategy.site == "embeddings"
    return one_pass and name not in INSIDE


ADDED = [name for name in registry.builtin_names() if is_added(name)]


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
    def go(noise, backend="eager", steps=14, **settings):
        """Train on batches of one record, hence of many lengths; return trainer and counts."""
        compiled = {"torch_compile": True, "torch_compile_backend": backend} if backend else {}
        settings = {"optim": "sgd", "learning_rate": 0.1, **compiled, **settings}
        args = config(max_steps=steps, per_device_train_batch_size=1, **settings)
        data = dict(train_dataset=records, eval_dataset=records.select(range(2)), processing_class=tokenizer)
        extra = {} if noise is None else {"noise": noise}
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


def losses(model, run, tap, noise, lengths, backend):
    """Return the losses of one batch per length, under `noise` if there is one."""
    compiled = torch.compile(model, backend=backend) if backend else model
    found = []
    for number, length in enumerate(lengths):
        ids = torch.randint(5, 200, (2, length), generator=torch.Generator().manual_seed(number))
        inputs = {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}
        batch = Batch.from_inputs(inputs, key=number, progress=number / len(lengths))
        with tap.open(noise, batch):
            found.append(run(compiled, inputs))
    return found


def loss_of(model, inputs):
    loss = model(**inputs).loss
    loss.backward()
    return loss.item()


@pytest.mark.parametrize("name", ADDED)
@pytest.mark.cell("torch.compile", "{name}: one addition in the graph")
def test_every_added_noise_is_one_addition_in_the_graph(llama, tokenizer, name):
    from neft_zoo.geometry import prepare

    lengths = (7, 12, 9, 15)
    model = llama(num_hidden_layers=1)
    noise = prepare(make(fitting(name)).noise, model, lambda: torch.arange(len(tokenizer)))
    tap = Tap(model, compiled=True)
    plain = losses(model, loss_of, tap, None, lengths, "eager")
    expected = Counts.read()
    torch._dynamo.reset()
    counters.clear()
    noisy = losses(model, loss_of, tap, noise, lengths, "eager")
    assert Counts.read() == expected and expected.breaks == 0
    tap.detach()
    eager = losses(model, loss_of, Tap(model), noise, lengths, None)
    assert noisy == pytest.approx(eager, abs=1e-5) and noisy != plain


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_drawn_ahead_is_what_the_hook_adds(llama, dtype):
    model = llama().to(dtype)
    ids = torch.arange(5, 29).view(2, 12)
    batch = Batch.from_inputs({"input_ids": ids, "labels": ids}, key=3)
    noise = make({"name": "token_relative", "rho": 0.01}).noise
    embedding, seen = model.get_input_embeddings(), []
    clean = embedding(ids).detach()
    tap = Tap(model, compiled=True)
    embedding.register_forward_hook(lambda module, args, output: seen.append(output.detach()))
    with tap.open(noise, batch) as done:
        model(ids)
    assert torch.equal(seen[-1], add_rounded(clean, noise(clean, batch), batch))
    assert torch.equal(done.deltas[-1], noise(clean, batch)) and torch.equal(done.embeds[-1], clean)


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["symnoise", "r3f", "freelb", *INSIDE[:2], "hype", "lnsr"])
@pytest.mark.cell("torch.compile", "{noise}: as eagerly, with graph breaks")
def test_what_is_not_one_addition_still_trains_as_it_does_eagerly(train, noise):
    compiled, counts = train(noise, steps=3)
    eager, _ = train(noise, backend=None, steps=3)
    assert counts.graphs > 0 and apart(weights(compiled.model), weights(eager.model)) < 1e-4


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
