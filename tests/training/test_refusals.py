"""What an objective cannot work with is said in one sentence."""

import pytest
import torch
from naive import INPUTS, Quadratic
from small_models import fitting
from transformers import LlamaConfig, LlamaForSequenceClassification, LlamaModel

from neft_zoo import NoiseError, SFTTrainer, attach, make
from neft_zoo.noise.cutoff import HideTokens
from neft_zoo.objectives.adversarial import Ascent, CleanAndAdversarial, FreeAscent, VirtualAdversarial
from neft_zoo.objectives.consistency import Consistency, DropoutConsistency, LayerStability
from neft_zoo.objectives.norm_ball import Ball
from neft_zoo.objectives.simple import MixedTargets, SymmetricPair
from neft_zoo.registry.strategy import Strategy


def refuse(what, match):
    with pytest.raises(NoiseError, match=match) as caught:
        what()
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return caught


@pytest.mark.parametrize(
    ("name", "arguments", "match"),
    [
        ("fgm", {"eps": -1}, "fgm: radius must be a finite number >= 0, got -1.0"),
        ("pgd", {"radius": -0.1}, "pgd: radius .* got -0.1"),
        ("pgd", {"radius": {"schedule": "linear", "start": 1, "end": -1}}, "radius at progress 0.6 must be .* >= 0"),
        ("pgd", {"steps": -1}, "pgd: steps must be a whole number >= 0, got -1"),
        ("pgd", {"steps": 1.5}, "pgd: steps must be a whole number, got 1.5"),
        ("freelb", {"steps": 0}, "freelb: steps must be a whole number >= 1, got 0"),
        ("token_vat", {"size": "inf"}, "token_vat: size must be a number or a schedule, got 'inf'"),
        ("smart", {"weight": -1}, "smart: weight .* got -1.0"),
        ("vat", {"steps": 0}, "vat: steps .* got 0"),
        ("cat", {"eps": -1}, "cat: radius .* got -1.0"),
        ("lat", {"size": -1}, "lat: size .* got -1.0"),
        ("r3f", {"what": "laplace"}, "r3f: what must be one of 'uniform', 'gaussian', got 'laplace'"),
        ("pdr", {"divergence": "tv"}, "pdr: divergence must be one of .* got 'tv'"),
        ("cutoff_token", {"ratio": 1}, "cutoff_token: ratio must be between 0 and .* got 1.0"),
        ("cutoff_span", {"ratio": -0.1}, "ratio must be between 0 and .* got -0.1"),
        ("cutoff_feature", {"cut_weight": -1}, "cut_weight must be a finite number >= 0, got -1.0"),
        ("hidden_cut", {"layers": []}, "layers must be 'all' or a list of layer numbers, or .* got \\(\\)"),
        ("lat", {"layers": "last"}, "layers must be 'all' or .* got 'last'"),
        ("lat", {"layers": [1.5]}, "layers must be 'all' or .* got \\(1.5,\\)"),
        ("lnsr", {"first": -1}, "lnsr: first must be a whole number >= 0, got -1"),
        ("r_drop", {"weight": "much"}, "r_drop: weight must be a number or a schedule, got 'much'"),
    ],
)
def test_numbers_out_of_range(name, arguments, match):
    refuse(lambda: make(name, **arguments), match)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: Ball(1.0, norm="batch"), "norm must be one of document, token, coordinate, got 'batch'"),
        (lambda: Ball(1.0, direction="down"), "direction must be one of gradient, sign, got 'down'"),
        (lambda: Ball(float("nan")), "radius must be a finite number"),
        (lambda: Ascent(Ball(1.0), steps=1.0), "steps must be a whole number >= 0, got 1.0"),
        (lambda: FreeAscent(Ball(1.0), steps=True), "steps must be a whole number >= 1, got True"),
        (lambda: VirtualAdversarial(Ball(1.0), size=-1), "size must be .* got -1"),
        (lambda: Consistency("tv"), "divergence must be one of kl, .* got 'tv'"),
        (lambda: Consistency(first=-1), "first must be .* got -1"),
        (lambda: DropoutConsistency(-1), "weight must be .* got -1"),
        (lambda: LayerStability(first=0.5), "first must be a whole number >= 0, got 0.5"),
    ],
)
def test_parts_of_ones_own(build, match):
    refuse(build, match)


@pytest.mark.parametrize("name", ["lat", "hidden_cut", "hype"])
@pytest.mark.parametrize("layers", [[2], [0, -3], [7]])
def test_layers_that_do_not_exist_are_refused_before_training(llama, config, records, tokenizer, name, layers):
    noise = {"name": name, "layers": layers}
    match = f"layers must lie between -2 and 1, got {layers[-1]}"
    model = llama()
    refuse(lambda: attach(model, noise, total_steps=1), match)
    settings = dict(args=config(), train_dataset=records, processing_class=tokenizer)
    refuse(lambda: SFTTrainer(model, noise=noise, **settings), match)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()), "no hook is left behind"


def test_lnsr_needs_the_layer_it_begins_at(llama):
    noise = {"name": "lnsr", "first": 2}
    refuse(lambda: attach(llama(), noise, total_steps=1), "first must be below the model's 2 layers, got 2")


HIDDEN = ["r3f", "pdr", "cutoff_token", "hidden_cut", "smart", "vat", "lnsr", "embed_mix"]
TINY = LlamaConfig(
    vocab_size=64, hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2, pad_token_id=0
)


@pytest.mark.parametrize("name", [name for name in HIDDEN if name not in ("hidden_cut", "lnsr")])
def test_a_model_without_a_backbone(name):
    refuse(lambda: attach(Quadratic(), fitting(name), total_steps=1), "a backbone under its head, got Quadratic")
    refuse(lambda: attach(LlamaModel(TINY), fitting(name), total_steps=1), "a backbone .* got LlamaModel")


@pytest.mark.parametrize("name", ["r3f", "cutoff_token", "smart", "embed_mix"])
def test_a_model_that_chooses_no_class(name):
    model = LlamaForSequenceClassification(LlamaConfig(**{**TINY.to_dict(), "num_labels": 1}))
    refuse(lambda: attach(model, fitting(name), total_steps=1), "one of several classes, got num_labels=1")


@pytest.mark.parametrize("name", [name for name in HIDDEN if name != "lnsr"])
def test_a_comparison_of_predictions_needs_labels(llama, name):
    model = llama().train()
    inputs = {"input_ids": INPUTS["input_ids"]}
    refuse(lambda: attach(model, fitting(name), total_steps=1).loss(inputs), "labels")

    def squared(model, inputs):
        return model(inputs["input_ids"]).logits.square().mean()

    refuse(lambda: attach(model, fitting(name), total_steps=1).loss(inputs, compute=squared), "needs labels")


@pytest.mark.parametrize("name", ["none", "neft_uniform", "symnoise", "pgd", "lnsr"])
def test_a_loss_needs_labels(llama, name):
    handle = attach(llama().train(), fitting(name), total_steps=1)
    inputs = {"input_ids": INPUTS["input_ids"]}
    refuse(lambda: handle.loss(inputs), r"model must return a loss: give the batch labels.* got \['input_ids'\]")


EDIT = HideTokens(0.5, "random")
ASCENTS = [make(name).objective for name in ("pgd", "freelb", "fgm", "smart")]


@pytest.mark.parametrize(
    ("noise", "objective", "match"),
    [
        *((EDIT, objective, "an ascent must start from a noise on embeddings or layers") for objective in ASCENTS),
        (EDIT, SymmetricPair(), "a symmetric pair needs a noise on embeddings or layers, got HideTokens"),
        (None, SymmetricPair(), "a symmetric pair needs a noise on embeddings or layers, got None"),
        (make("hype").noise, MixedTargets(), "mixed targets need a noise that mixes documents .* got AtLayers"),
    ],
)
def test_a_noise_and_an_objective_that_do_not_go_together(noise, objective, match):
    refuse(lambda: Strategy(noise, objective), match)


SHOWN = pytest.mark.cell("Trainers", "SFT, several passes under reentrant activation checkpointing")
SEVERAL = [pytest.param("symnoise", marks=SHOWN), "r_drop", "r3f", "lnsr", "fgm", "pgd", "freelb", "smart"]


@pytest.mark.parametrize("name", SEVERAL)
def test_reentrant_checkpointing(llama, config, records, tokenizer, refused, name):
    args = config(gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": True})
    settings = dict(args=args, train_dataset=records, processing_class=tokenizer)
    caught = refuse(lambda: SFTTrainer(llama(), noise=name, **settings), f"use_reentrant must be false with {name}")
    refused(caught)


@pytest.mark.parametrize("name", ["fgm", "pgd", "freelb", "smart", "vat", "lat", "cat", "token_vat"])
def test_a_model_that_checkpoints_reentrantly(llama, name):
    model = llama().train()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    refuse(lambda: attach(model, fitting(name), total_steps=1), "use_reentrant must be false .* with an ascent")
    model.gradient_checkpointing_enable({"use_reentrant": False})
    attach(model, fitting(name), total_steps=1).loss(INPUTS).backward()


def test_a_batch_without_a_graded_token_trains_on_nothing(llama, config, records, tokenizer):
    """As in TRL: its loss is 0, not 0 / 0."""
    nothing = {**INPUTS, "labels": torch.full_like(INPUTS["labels"], -100)}
    for name in ("r3f", "vat", "freelb", "cutoff_token"):
        model = llama().train()
        trainer = SFTTrainer(model, args=config(), train_dataset=records, processing_class=tokenizer, noise=name)
        loss = trainer.compute_loss(model, dict(nothing), num_items_in_batch=torch.tensor(0))
        assert loss.item() == 0
        loss.backward()
        assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)


def test_a_single_step_entry_keeps_its_radius_at_zero(llama):
    """Radius 0 leaves no room: clean, twice."""
    model = llama().train()
    plain = attach(model, "none", total_steps=1).loss(INPUTS)
    for objective, noise in ((CleanAndAdversarial(Ball(0.0)), None), (FreeAscent(Ball(0.0)), make("freelb").noise)):
        handle = attach(model, Strategy(noise, objective), total_steps=1)
        times = 2 if noise is None else 1
        assert handle.loss(INPUTS).item() == pytest.approx(times * plain.item(), rel=1e-7)
        handle.detach()
