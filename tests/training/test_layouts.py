"""Whatever the layout, the split or the checkpointing of a batch: the same loss and the same gradients."""

import pytest
import torch
from naive import DOCUMENTS, INPUTS, furthest, gradients, packed, padded
from selection import NEED_OTHER_MODELS, one_of_each_kind, quick
from small_models import fitting
from transformers import TrainerCallback

import neft_zoo
from neft_zoo import NoiseError, SFTTrainer, attach, make
from neft_zoo.noise.additive import AtLayers
from neft_zoo.noise.cutoff import HideTokens
from neft_zoo.registry.strategy import Strategy

NAMES = [name for name in neft_zoo.names() if name not in NEED_OTHER_MODELS]
PAIRED = [*DOCUMENTS, [23, 24, 25, 26, 27, 28]]  # two of one length, for the entry that mixes them
SPLIT = [name for name in NAMES if name != "embed_mix"]  # it mixes what is in a micro-batch
UNMASKED = [name for name in SPLIT if name not in ("noisy_tune", "r_drop", "sam")]


def step(model, tokenizer, noise, inputs):
    """Return the loss and the gradients of one step under an entry or a strategy."""
    counts = torch.arange(len(tokenizer)) % 7
    handle = attach(model, noise, total_steps=1, seed=3, tokenizer=tokenizer, token_counts=counts)
    torch.manual_seed(3)
    with handle.perturbed():
        loss = handle.loss(inputs)
        loss.backward()
    handle.detach()
    return loss.item(), gradients(model)


def differ(one, other):
    return max(abs(one[0] / other[0] - 1), furthest(one[1], other[1]))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "r_drop"])  # masks depend on the layout
def test_padding_left_or_right_and_packing_are_alike(llama, tokenizer, name):
    model = llama().double().train()
    right, left, flat = (
        step(model, tokenizer, fitting(name), inputs)
        for inputs in (padded(PAIRED), padded(PAIRED, side="left"), packed(PAIRED))
    )
    assert differ(left, right) < 1e-4 and differ(flat, right) < 1e-4
    if make(fitting(name)).noise is not None:
        plain = step(model, tokenizer, "none", padded(PAIRED))
        assert differ(plain, right) > 1e-3, "what is compared is not the plain loss"


STARTS = [
    make("neft_laplace", alpha=20).noise,
    make("dx_laplace", eta=300).noise,
    make("embedding_dropout", p=0.3).noise,
    make("cutoff_span", ratio=0.3).noise,
    make("token_subspace", k=4).noise,
    make("hype", size=0.1, what="uniform").noise,
    make("hidden_cut", ratio=0.3).noise,
    HideTokens(0.4, "random"),
]
OTHER_NOISES = dict(zip(["fgm", "symnoise", "pdr", "freelb", "pgd", "vat", "cat", "r3f"], STARTS, strict=True))
OBJECTIVES = {repr(made.objective): made.objective for made in map(make, map(fitting, NAMES))}


def takes(objective, noise):
    try:
        return Strategy(noise, objective)
    except NoiseError:
        return None


# Of the embeddings, of layers, of token ids.
@pytest.mark.parametrize(
    "noise",
    quick(STARTS, STARTS[0], STARTS[5], STARTS[7]),
    ids=lambda noise: type(getattr(noise, "noise", noise)).__name__,
)
def test_every_objective_works_with_any_noise(llama, tokenizer, noise):
    """Without labels to mix or a gradient at token ids some refuse; the others train alike in every layout."""
    model, done = llama(attention_dropout=1e-9).double().train(), 0
    for strategy in filter(None, (takes(objective, noise) for objective in OBJECTIVES.values())):
        padding, flat = (step(model, tokenizer, strategy, inputs) for inputs in (padded(PAIRED), packed(PAIRED)))
        assert differ(flat, padding) < 1e-4, strategy.objective
        done += 1
    refusing = 13 if isinstance(noise, HideTokens) else 2 if isinstance(noise, AtLayers) else 1
    assert done == len(OBJECTIVES) - refusing


@pytest.mark.parametrize("name", quick(NAMES, *one_of_each_kind(NAMES)))
def test_gradient_checkpointing_changes_nothing(llama, tokenizer, name):
    """With dropout: what is computed again must see the masks, and the noise, of the first time."""
    model = llama(attention_dropout=0.2).train()
    plain = step(model, tokenizer, fitting(name), INPUTS)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert differ(step(model, tokenizer, fitting(name), INPUTS), plain) < 1e-6


class Gradients(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.found = {name: p.grad.double().clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def trained(llama, config, records, tokenizer):
    """Return a maker of one optimizer step of four records: its logged loss and its gradients."""

    def run(noise, model=None, **settings):
        seen = Gradients()
        trainer = SFTTrainer(
            model or llama(),
            args=config(max_steps=1, max_grad_norm=0, **settings),
            train_dataset=records.select(range(4)),
            processing_class=tokenizer,
            noise=noise,
            callbacks=[seen],
        )
        trainer.train()
        return trainer.state.log_history[0]["loss"], seen.found

    return run


@pytest.mark.parametrize("name", quick(UNMASKED, *{*one_of_each_kind(UNMASKED), "r3f", "freelb"}))
def test_one_batch_of_four_is_four_of_one(trained, name):
    """`noisy_tune` has nothing to do with batches, masks of `r_drop` depend on them, `sam` climbs in each of them."""
    whole = trained(fitting(name))
    split = trained(fitting(name), per_device_train_batch_size=1, gradient_accumulation_steps=4)
    assert differ(split, whole) < 1e-3


@pytest.mark.parametrize("name", quick(OTHER_NOISES, "symnoise", "freelb", "vat", "r3f"))
def test_a_trainer_runs_an_objective_with_another_noise(trained, name):
    strategy = Strategy(OTHER_NOISES[name], make(fitting(name)).objective)
    whole = trained(strategy)
    split = trained(strategy, per_device_train_batch_size=1, gradient_accumulation_steps=4)
    assert differ(split, whole) < 1e-3 < differ(trained(fitting(name)), whole)


FLAT = ["symnoise", "r3f", "lnsr", "vat", "freelb", "lat", "cat", "embed_mix"]


@pytest.mark.parametrize("name", quick(FLAT, "symnoise", "r3f", "lat", "embed_mix"))
def test_a_padding_free_trainer_is_alike(trained, name):
    whole = trained(fitting(name))
    assert differ(trained(fitting(name), padding_free=True, max_length=None), whole) < 1e-3


@pytest.mark.cell("Precision", "bf16 autocast")
@pytest.mark.parametrize("name", quick(["freelb", "fgm", "pgd", "smart", "r3f"], "freelb", "smart", "r3f"))
def test_autocast_and_lora_train_as_in_full_precision(llama, trained, name):
    from peft import LoraConfig, get_peft_model

    def model():
        made = llama()
        torch.manual_seed(1)
        # The padding token's zero would be where all of the ascent goes.
        torch.nn.init.normal_(made.get_input_embeddings().weight, std=0.02)
        config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
        return get_peft_model(made, config)

    settings = [dict(bf16=bf16, gradient_checkpointing=True) for bf16 in (False, True)]
    full, half = (trained(fitting(name), model=model(), **one) for one in settings)
    assert 0 < differ(half, full) < 0.25  # 8 bits, twice through the model where it ascends
