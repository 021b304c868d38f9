"""What a step of several passes costs, counts and shares."""

import pytest
import torch
from naive import INPUTS, Spy, furthest, gradients
from selection import NEED_OTHER_MODELS, one_of_each_kind, quick
from small_models import fitting, same, weights
from transformers import TrainerCallback

import neft_zoo
from neft_zoo import SFTTrainer, attach, make
from neft_zoo.objectives import LayerStability, TokenAwareAscent
from neft_zoo.objectives.adversarial import CleanAndAdversarial, FreeAscent
from neft_zoo.registry.strategy import Strategy

NAMES = [name for name in neft_zoo.names() if name not in NEED_OTHER_MODELS]
MANY = [name for name in NAMES if make(name).objective.passes > 1]


class Count:
    """Counts how often the last tensor before the head is computed, and how often a gradient comes back to it."""

    def __init__(self, model):
        self.forwards = self.backwards = 0
        self.hook = model.get_decoder().norm.register_forward_hook(self._forward)

    def _forward(self, module, args, output):
        self.forwards += 1
        output.register_hook(self._backward)

    def _backward(self, gradient):
        self.backwards += 1


def below_the_norm(strategy):
    """Return how many passes get no gradient through the last norm: of the noisy one, `lnsr` compares layers only."""
    return int(isinstance(strategy.objective, LayerStability))


@pytest.mark.parametrize("name", NAMES)
def test_attach_costs_the_stated_passes(llama, tokenizer, name):
    model, strategy = llama(attention_dropout=0.1).train(), make(fitting(name))
    handle = attach(
        model, strategy, total_steps=1, tokenizer=tokenizer, token_counts=torch.ones(len(tokenizer)).long()
    )
    count = Count(model)
    with handle.perturbed():
        handle.loss(INPUTS).backward()
    passes = strategy.objective.passes
    # Without a backward of its own, a loop keeps what trains and goes through it once more.
    kept = passes - 1 if isinstance(strategy.objective, FreeAscent | TokenAwareAscent | CleanAndAdversarial) else 0
    assert (count.forwards, count.backwards) == (passes, passes + kept - below_the_norm(strategy))


@pytest.fixture
def trainer(llama, config, records, tokenizer):
    """Return a maker of trainers that take two steps of two micro-batches and log at the end."""

    def make(noise, model=None, **settings):
        defaults = dict(max_steps=2, per_device_train_batch_size=2, gradient_accumulation_steps=2, logging_steps=99)
        return SFTTrainer(
            model or llama(attention_dropout=0.1),
            args=config(**{**defaults, **settings}),
            train_dataset=records.select(range(8)),
            processing_class=tokenizer,
            noise=noise,
        )

    return make


class Lengths(TrainerCallback):
    """Keeps how many numbers of each metric the trainer has gathered."""

    def __init__(self, trainer):
        self.trainer = trainer

    def on_step_end(self, args, state, control, **kwargs):
        self.found = {name: len(values) for name, values in self.trainer._metrics["train"].items()}


@pytest.mark.parametrize("name", quick(NAMES, *one_of_each_kind(NAMES)))
def test_a_trainer_costs_the_stated_passes_and_counts_one(trainer, name):
    run = trainer(fitting(name))
    count, lengths = Count(run.model), Lengths(run)
    run.add_callback(lengths)
    run.train()
    passes = run.strategy.objective.passes
    assert (count.forwards, count.backwards) == (4 * passes, 4 * (passes - below_the_norm(run.strategy)))
    assert lengths.found == {"entropy": 4, "mean_token_accuracy": 4, "num_tokens": 1}
    assert run._total_train_tokens == sum(len(record["input_ids"]) for record in run.train_dataset)


SILENT = {
    "cat": ({"size": 0, "steps": 3}, 1),
    "fgm": ({"eps": 0}, 2),
    "freelb": ({"alpha": 0, "size": 0}, 1),
    "lat": ({"size": 0, "steps": 3, "layers": [0]}, 1),
    "pgd": ({"alpha": 0, "size": 0}, 1),
    "smart": ({"start": 1e-6, "radius": 0, "size": 0}, 1),
    "token_vat": ({"alpha": 0, "size": 0}, 1),
    "vat": ({"start": 1e-6, "radius": 0}, 1),
    "symnoise": ({"alpha": 0}, 1),
}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", SILENT)
def test_all_passes_of_a_step_share_their_dropout_masks(llama, name, checkpointing):
    arguments, factor = SILENT[name]
    strategy = make(name, **arguments)
    found = []
    for noise in (Strategy(strategy.noise, Spy(strategy.objective)), "none"):
        model = llama(attention_dropout=0.3).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(3)
        loss = attach(model, noise, total_steps=1).loss(INPUTS)
        state = torch.get_rng_state()
        loss.backward()
        found.append((loss.item(), gradients(model), state, noise))
    (got, grads, state, spied), (plain, reference, expected, _) = found
    losses = [done.loss.item() for done in spied.objective.step.passes]
    assert losses == pytest.approx([plain] * strategy.objective.passes, rel=1e-6)
    assert got == pytest.approx(factor * plain, rel=1e-6)
    assert furthest(grads, {key: factor * value for key, value in reference.items()}) < 1e-6
    assert torch.equal(state, expected), "the step leaves the random state where one pass does"


def test_r_drop_draws_its_masks_anew(llama):
    spy = Spy(make("r_drop").objective)
    attach(llama(attention_dropout=0.3).train(), Strategy(None, spy), total_steps=1).loss(INPUTS)
    one, two = (done.loss.item() for done in spy.step.passes)
    assert one != two


@pytest.mark.parametrize("name", MANY)
def test_gradients_of_an_earlier_micro_batch_are_kept(llama, name):
    model = llama(attention_dropout=0.1).train()
    handle = attach(model, fitting(name), total_steps=1)

    def run(rows):
        torch.manual_seed(int(rows))
        handle.loss({key: value[rows : rows + 1] for key, value in INPUTS.items()}, step=0).backward()

    alone = []
    for rows in (0, 1):
        run(rows)
        alone.append(gradients(model))
    for rows in (0, 1):
        run(rows)
    assert furthest(gradients(model), {key: alone[0][key] + alone[1][key] for key in alone[0]}) < 1e-6


NEFT = {"name": "neft_uniform", "alpha": 5}
ONE = {"name": "freelb", "steps": 1, "alpha": 5, "radius": 10}  # its start is in the ball


def test_one_pass_of_freelb_is_neftune_bit_for_bit(llama):
    found = []
    for noise in (ONE, NEFT):
        model = llama(attention_dropout=0.1).train()
        torch.manual_seed(3)
        loss = attach(model, noise, total_steps=1).loss(INPUTS)
        loss.backward()
        found.append((loss, gradients(model)))
    (one, first), (two, second) = found
    assert torch.equal(one, two) and all(torch.equal(first[key], second[key]) for key in second)


def test_one_pass_of_freelb_trains_like_neftune_bit_for_bit(trainer):
    found = []
    for noise in (ONE, NEFT, "none"):
        run = trainer(noise)
        found.append((run.train().training_loss, weights(run.model)))
    (one, first), (two, second), (_, clean) = found
    assert one == two and same(first, second) and not same(first, clean)
