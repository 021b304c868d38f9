"""Exceptions, interrupts and retries in the middle of a pass: the model is left as it was found."""

import copy
import pickle

import pytest
import torch
from small_models import same, weights
from torch import nn

from neft_zoo import NoiseError, SFTTrainer, Trainer, attach

LAT = {"name": "lat", "layers": [0, 1]}
IDS = torch.arange(5, 29).view(4, 6)
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": IDS.clone()}
ROWS = [{name: value[i].tolist() for name, value in BATCH.items()} for i in range(4)] * 4


def traces(model):
    """Return all that hooks and attributes can leave on the modules of a model; TRL patches the outermost one."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [
        (name, sorted(vars(m)) if name else [], [len(getattr(m, k)) for k in kinds])
        for name, m in model.named_modules()
    ]


class Fails(nn.Module):
    """An activation that raises on its n-th call, in the forward or in the backward pass."""

    def __init__(self, error, at, backward):
        super().__init__()
        self.error, self.left, self.backward = error, at, backward

    def forward(self, x):
        out = nn.functional.silu(x)
        if self.backward and out.requires_grad:
            out.register_hook(self.count)
        elif not self.backward:
            self.count(None)
        return out

    def count(self, gradient):
        self.left -= 1
        if self.left == 0:
            raise self.error


def failing(model, error, at, backward):
    model.model.layers[1].mlp.act_fn = Fails(error, at, backward)
    return model


def trained(model, config, records, tokenizer, noise, **settings):
    args = config(**settings)
    trainer = SFTTrainer(model, args=args, train_dataset=records, processing_class=tokenizer, noise=noise)
    trainer.train()
    return trainer


@pytest.mark.cell("Faults", "exception or Ctrl-C inside a forward or backward pass")
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("error", [RuntimeError("stop"), pytest.param(KeyboardInterrupt(), marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "noise", ["neft_uniform", "freelb", *(pytest.param(each, marks=pytest.mark.slow) for each in (LAT, "vat"))]
)
def test_an_error_inside_a_pass_leaves_no_trace(llama, config, records, tokenizer, noise, error, backward):
    model = failing(llama(), error, at=4, backward=backward)
    before = traces(model)
    with pytest.raises(type(error)):
        trained(model, config, records, tokenizer, noise)
    assert traces(model) == before
    first = weights(model)
    again = trained(model, config, records, tokenizer, noise)
    plain = failing(llama(), error, at=-1, backward=backward)
    plain.load_state_dict(first)
    assert same(weights(again.model), weights(trained(plain, config, records, tokenizer, noise).model))


@pytest.mark.cell("Faults", "deepcopy, pickle, save_pretrained")
@pytest.mark.parametrize("noise", ["neft_uniform", "symnoise", LAT])
def test_an_attached_model_can_be_copied_pickled_and_saved(llama, tmp_path, noise):
    model = llama().train()
    before = traces(model)
    for attached in (True, False):
        handle = attach(model, noise, total_steps=4)
        handle.loss(BATCH, step=0).backward()
        if not attached:
            handle.detach()
            assert traces(model) == before
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert same(weights(twin), weights(model))
            assert torch.equal(twin(**BATCH).loss, model(**BATCH).loss)
        model.save_pretrained(tmp_path / f"{attached}")
        assert same(weights(type(model).from_pretrained(tmp_path / f"{attached}")), weights(model))
        handle.detach()
        handle.detach()  # twice is once
    assert traces(model) == before


@pytest.mark.cell("Faults", "model_init")
def test_a_fresh_model_of_model_init_is_attached_in_every_run(llama, config):
    made = []

    def build():
        made.append(llama())
        return made[-1]

    ends = []
    for noise in ("none", "neft_uniform"):
        trainer = Trainer(model_init=build, args=config(), train_dataset=ROWS, noise=noise)
        made.clear()
        for _ in range(2):
            trainer.train()
            ends.append(weights(trainer.model))
        assert len(made) == 2 and trainer.model is made[1]
    assert same(*ends[:2]) and same(*ends[2:]) and not same(ends[0], ends[2])
    assert all(traces(model) == traces(llama()) for model in made)


@pytest.fixture
def search(llama, config):
    """Return a maker of a trainer and a function that runs its search of two trials."""
    pytest.importorskip("optuna", reason="optuna is not installed")

    def make(space, noise="neft_uniform", **settings):
        made = []

        def build():
            made.append(llama())
            return made[-1]

        args = config(max_steps=2, eval_strategy="no", **settings)
        trainer = Trainer(model_init=build, args=args, train_dataset=ROWS, eval_dataset=ROWS[:4], noise=noise)
        told = dict(hp_space=space, n_trials=2, backend="optuna", direction="minimize")
        return trainer, made, lambda: trainer.hyperparameter_search(**told)

    return make


@pytest.mark.cell("Faults", "hyperparameter_search with optuna")
def test_a_search_attaches_to_the_model_of_every_trial(search, llama, config):
    def rates(trial):
        return {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-2)}

    trainer, made, run = search(rates)
    best = run()
    assert len(made) >= 2 and 1e-3 < best.hyperparameters["learning_rate"] < 1e-2
    assert all(line["noise/rms"] > 0 for line in trainer.state.log_history if "loss" in line)
    assert all(traces(model) == traces(llama()) for model in made)
    args = config(max_steps=2, learning_rate=trainer.args.learning_rate)
    alone = Trainer(model_init=lambda: llama(), args=args, train_dataset=ROWS, noise="neft_uniform")
    alone.train()
    assert same(weights(made[-1]), weights(alone.model)), "a trial is a run of its own"


@pytest.mark.cell("Faults", "hyperparameter_search that changes args.noise")
def test_a_search_over_noise_is_refused(search, refused):
    _, _, run = search(lambda trial: {"noise": "symnoise"})
    with pytest.raises(NoiseError, match="hp_space must leave noise as .* 'neft_uniform', got 'symnoise'") as caught:
        run()
    refused(caught)


@pytest.mark.cell("Faults", "hyperparameter_search in TRL's trainers (they take no model_init)")
def test_trls_trainers_cannot_search(llama, config, records, tokenizer, refused):
    trainer = SFTTrainer(
        llama(), args=config(), train_dataset=records, processing_class=tokenizer, noise="neft_uniform"
    )
    with pytest.raises(RuntimeError, match="model_init") as caught:
        trainer.hyperparameter_search(n_trials=1, backend="optuna")
    refused(caught)
    assert traces(trainer.model) == traces(llama())


class TooBig(nn.Module):
    """An activation that runs out of memory, as CUDA says it, for more than two rows."""

    def forward(self, x):
        if x.shape[0] > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return nn.functional.silu(x)


@pytest.mark.cell("Faults", "auto_find_batch_size")
@pytest.mark.parametrize("noise", ["neft_uniform", "symnoise"])
def test_a_smaller_batch_is_found_and_the_noise_is_not_doubled(llama, config, records, tokenizer, noise):
    def with_limit():
        model = llama()
        model.model.layers[1].mlp.act_fn = TooBig()
        return model

    found = trained(with_limit(), config, records, tokenizer, noise, auto_find_batch_size=True)
    size = found._train_batch_size
    assert size <= 2
    straight = trained(with_limit(), config, records, tokenizer, noise, per_device_train_batch_size=size)
    rms = [[line["noise/rms"] for line in t.state.log_history if "loss" in line] for t in (found, straight)]
    assert rms[0] == rms[1] and same(weights(found.model), weights(straight.model))
    assert traces(found.model) == traces(with_limit())
