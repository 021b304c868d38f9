"""Losses and divergences made of the same logits: equal to those made apart, cheaper, of a loss that is known only."""

import pytest
import torch
import trl
from naive import furthest
from peft import PromptTuningConfig
from selection import quick
from small_models import fitting
from torch.utils.flop_counter import FlopCounterMode

from neft_zoo import NoiseMixin, SFTTrainer, make
from neft_zoo.noise.batch import IGNORED
from neft_zoo.training import strategy_loss
from neft_zoo.training.hf_internals import is_nll

# In place, which is how gradients of the head are summed over chunks, products are not counted without being told.
IN_PLACE = {torch.ops.aten.addmm_: lambda _, a, b, **__: 2 * a[0] * a[1] * b[1]}
COMPARING = ["r_drop", "r3f", "cutoff_token", "cutoff_span", "smart", "vat", "embed_mix"]
LAYOUTS = {
    "padded": {},
    "packed": {"packing": True, "max_length": 64},
    "whole": {"completion_only_loss": False},
    "padding free": {"padding_free": True, "max_length": None},
}


@pytest.fixture
def trainer(llama, config, records, tokenizer):
    """Return a maker of trainers of a model with dropout."""

    def make(noise, kind=SFTTrainer, model=None, peft_config=None, **settings):
        model = model or llama(attention_dropout=0.1, tie_word_embeddings=False)
        args = config(**{"gradient_accumulation_steps": 2, **settings})
        known = dict(train_dataset=records, processing_class=tokenizer, peft_config=peft_config)
        return kind(model, args=args, noise=noise, **known)

    return make


def one_step(run):
    """Return the loss and the gradients of the first batch, as the trainer takes them."""
    run.model.train()
    batches, count = run.get_batch_samples(iter(run.get_train_dataloader()), 2, run.args.device)
    run.current_gradient_accumulation_steps = 2
    torch.manual_seed(0)
    losses = [run.training_step(run.model, batch, count) for batch in batches]
    return torch.stack(losses), {name: value.grad for name, value in run.model.named_parameters()}


# Every strategy in one layout, every layout with one strategy.
EACH = [
    pytest.param(name, layout, marks=[] if "r3f" == name or layout == "padded" else pytest.mark.slow)
    for name in COMPARING
    for layout in LAYOUTS
]


@pytest.mark.parametrize(("name", "layout"), EACH)
def test_a_step_is_what_it_is_with_losses_of_their_own(trainer, monkeypatch, name, layout):
    joint, grads = one_step(trainer(fitting(name), **LAYOUTS[layout]))
    monkeypatch.setattr(strategy_loss, "is_nll", lambda *_: False)
    apart, expected = one_step(trainer(fitting(name), **LAYOUTS[layout]))
    torch.testing.assert_close(joint, apart, rtol=2e-6, atol=0)
    assert furthest(grads, expected) < 2e-5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_beside_the_loss_is_the_divergence_at_the_targets(trainer, layout):
    found = {}
    for weight in (0.0, 1.0):
        run, hidden = trainer(make({"name": "r3f", "weight": weight, "eps": 0.05}), **LAYOUTS[layout]), []
        run.model.get_decoder().norm.register_forward_hook(
            lambda module, args, output, into=hidden: into.append(output)
        )
        batches, count = run.get_batch_samples(iter(run.get_train_dataloader()), 1, run.args.device)
        labels = batches[0]["labels"][:, 1:]
        found[weight] = run.training_step(run.model.train(), batches[0], count)
    clean, noisy = (
        run.model.lm_head(each[:, :-1])[labels != IGNORED].double().log_softmax(-1).detach() for each in hidden
    )
    expected = ((clean.exp() - noisy.exp()) * (clean - noisy)).sum() / count
    assert expected > 1e-3
    torch.testing.assert_close((found[1.0] - found[0.0]).double(), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "name", quick(["r_drop", "r3f", "cutoff_token", "cutoff_feature", "cutoff_span"], "r_drop", "r3f")
)
def test_two_passes_cost_two_steps(trainer, llama, name):
    # The head is a third of this model, as of the one that is shipped.
    shape = dict(hidden_size=64, intermediate_size=256, num_hidden_layers=8, attention_dropout=0.1)
    work = {}
    for noise in ("none", name):
        run = trainer(noise, model=llama(tie_word_embeddings=False, **shape), completion_only_loss=False)
        with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
            one_step(run)
        work[noise] = counter.get_total_flops()
    assert work[name] < 2.1 * work["none"]


class Tripled(trl.SFTTrainer):
    """A trainer with a loss of its own."""

    def compute_loss(self, *args, **kwargs):
        return 3 * super().compute_loss(*args, **kwargs)


class Noisy(NoiseMixin, Tripled):
    pass


def test_a_loss_of_ones_own_is_kept(trainer):
    noise = make({"name": "r3f", "weight": 0.0})
    mine, theirs = (one_step(trainer(noise, kind))[0] for kind in (Noisy, SFTTrainer))
    torch.testing.assert_close(mine, 3 * theirs)


@pytest.mark.parametrize(
    ("settings", "known"),
    [
        ({}, True),
        ({"loss_type": "dft"}, False),
        ({"label_smoothing_factor": 0.1}, False),
        ({"peft_config": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)}, False),
    ],
)
def test_the_loss_is_known_where_it_is_the_labels_likelihood(trainer, settings, known):
    run = trainer("r3f", **settings)
    assert is_nll(run, super(NoiseMixin, run).compute_loss) == known


@pytest.mark.parametrize(
    "settings",
    [{"loss_type": "dft"}, pytest.param({"label_smoothing_factor": 0.1}, marks=pytest.mark.later)],
    ids=["dft", "label_smoothing"],
)
def test_other_losses_count_as_the_trainer_says(trainer, settings):
    noisy, plain = (
        one_step(trainer(noise, **settings))[0] for noise in (make({"name": "r3f", "weight": 0.0}), "none")
    )
    torch.testing.assert_close(noisy, plain)
