"""The same promises on every family of models: where noise arrives, how much, and what stays clean."""

import copy
import math

import pytest
import torch
import transformers as t
from architectures import HEADS, PLACEHOLDER, TEXT, llava, qwen2_vl, text

from neft_zoo import NoiseError, attach, make
from neft_zoo.noise.batch import Batch
from neft_zoo.passes.anatomy import find_embedding
from neft_zoo.passes.hooks import ModelHooks
from neft_zoo.passes.layers import find_layers
from neft_zoo.passes.lm_head import LanguageHead
from neft_zoo.passes.special_tokens import special_token_ids
from neft_zoo.passes.step import Step

ALPHA = 5.0
LENGTHS = (9, 5, 14)
SCALED = {"gemma": math.sqrt(32), "gemma2": math.sqrt(32), "gemma3": math.sqrt(32), "minicpm3": 12.0}
VISION = {"llava": (llava, 4), "qwen2_vl": (qwen2_vl, 2)}
FAMILIES = [*TEXT, *VISION]


def text_batch(pad_left=False):
    """Return documents of 9, 5 and 14 tokens, padded."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.stack([torch.arange(14) < length for length in LENGTHS])
    mask = mask.flip(-1) if pad_left else mask
    ids = torch.randint(3, 58, mask.shape, generator=generator) * mask
    return {"input_ids": ids, "attention_mask": mask.long(), "labels": ids.masked_fill(~mask, -100)}


def image_batch(name):
    """Return the same documents with an image in front of the second token of each."""
    inputs, count = text_batch(), VISION[name][1]
    shape = (len(LENGTHS), count)
    pieces = {"input_ids": PLACEHOLDER, "attention_mask": 1, "labels": -100}
    inputs = {
        key: torch.cat([inputs[key][:, :1], torch.full(shape, piece), inputs[key][:, 1:]], 1)
        for key, piece in pieces.items()
    }
    generator = torch.Generator().manual_seed(2)
    if name == "llava":
        return {**inputs, "pixel_values": torch.randn(3, 3, 8, 8, generator=generator)}
    extra = {"image_grid_thw": torch.tensor([[1, 2, 4]] * 3), "pixel_values": torch.randn(24, 96, generator=generator)}
    return {**inputs, **extra, "mm_token_type_ids": (inputs["input_ids"] == PLACEHOLDER).long()}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    """Return a family's name, its model in train mode and a batch for it."""
    name = request.param
    if name in VISION:
        return name, VISION[name][0](), image_batch(name)
    return name, text(name), text_batch()


def arrived(model, inputs, noise):
    """Return what the model's layers see added to the embeddings in a step of `noise`, and the measured numbers."""
    seen = []
    handle = attach(model, noise, total_steps=1)
    last = find_embedding(model).register_forward_hook(
        lambda module, args, output: seen.append(output.detach().clone()) if output.dim() == 3 else None
    )
    handle.loss(inputs)
    handle.detach()
    model(**inputs)
    last.remove()
    return seen[0] - seen[1], handle.measured


@pytest.mark.cell("Architectures", "{family}")
def test_every_document_gets_its_noise_and_nothing_else_does(family):
    name, model, inputs = family
    delta, measured = arrived(model, inputs, {"name": "neft_uniform", "alpha": ALPHA})
    real = (inputs["attention_mask"] == 1) & (inputs["input_ids"] != PLACEHOLDER)
    assert not delta[~real].any(), "padding and placeholders are clean"
    for row, length in enumerate(LENGTHS):
        noise, bound = delta[row][real[row]], ALPHA / math.sqrt(length * delta.shape[-1])
        assert len(noise) == length and 0.9 * bound < noise.abs().max() < bound + 1e-6
        assert noise.norm().item() == pytest.approx(ALPHA / math.sqrt(3), rel=0.2)
    assert measured["rms"] == pytest.approx(delta[real].square().mean().sqrt().item(), rel=1e-3)


@pytest.mark.cell("Architectures", "{family}")
def test_evaluation_and_passes_without_gradients_are_clean(family):
    name, model, inputs = family
    clean = copy.deepcopy(model)
    handle = attach(model, {"name": "neft_uniform", "alpha": 50}, total_steps=1)
    with torch.no_grad():
        assert torch.equal(handle.loss(inputs), clean(**inputs).loss)
        assert torch.equal(model(**inputs).logits, clean(**inputs).logits)
    assert not torch.equal(handle.loss(inputs), clean(**inputs).loss)
    assert torch.equal(model(**inputs).logits, clean(**inputs).logits)
    model.eval(), clean.eval()
    assert torch.equal(handle.loss(inputs), clean(**inputs).loss)
    model.train()
    handle.detach()


@pytest.mark.cell("Architectures", "{family}")
def test_greedy_decoding_in_train_mode_is_that_of_the_model_without_hooks(family):
    name, model, inputs = family
    clean = copy.deepcopy(model)
    asked = {key: value[1:2] for key, value in inputs.items() if key != "labels" and key != "pixel_values"}
    if name in VISION:
        share = len(inputs["pixel_values"]) // 3
        asked["pixel_values"] = inputs["pixel_values"][share : 2 * share]
    told = dict(max_new_tokens=5, do_sample=False, pad_token_id=0)
    with attach(model, {"name": "neft_uniform", "alpha": 50}, total_steps=1) as handle:
        handle.loss(inputs)
        assert torch.equal(model.generate(**asked, **told), clean.generate(**asked, **told))


# A delta of its own, two passes compared at the head, layers compared, noise on layers.
STEPS = ["neft_uniform", {"name": "r3f", "eps": 1.0, "relative": True}, "lnsr", {"name": "hype", "size": 0.01}]


@pytest.mark.cell("Architectures", "{family}")
@pytest.mark.parametrize("noise", STEPS, ids=["neft_uniform", "r3f", "lnsr", "hype"])
def test_a_step_gives_finite_gradients(family, noise):
    name, model, inputs = family
    if name == "gemma3n" and noise in STEPS[2:]:
        return  # the next test is about it
    with attach(model, noise, total_steps=1) as handle:
        clean = model(**inputs).loss
        loss = handle.loss(inputs)
        loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    assert loss.isfinite() and loss != clean and handle.measured["rms"] > 0
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)


@pytest.mark.cell("Architectures", "gemma3n: noise on layers (several states per token)")
@pytest.mark.parametrize("noise", STEPS[2:], ids=["lnsr", "hype"])
def test_layers_of_several_states_per_token_are_refused(refused, noise):
    with attach(text("gemma3n"), noise, total_steps=1) as handle:
        with pytest.raises(NoiseError, match="one state per token, got 3 dimensions in Gemma3nForCausalLM") as caught:
            handle.loss(text_batch())
    refused(caught)


def test_layers_and_the_head_are_the_models_own(family):
    """What a divergence compares are the logits that the model returns, noise included."""
    name, model, inputs = family
    tap = ModelHooks(model, layers=True, hidden=True)
    batch = Batch.from_inputs(inputs, **special_token_ids(None, model.config))
    with tap.open(make("neft_uniform", alpha=20).noise, batch) as done:
        logits = model(**inputs).logits
    tap.detach()
    torch.testing.assert_close(LanguageHead(model)(done.hidden), logits)
    assert len(find_layers(model)) == 2 and sorted(done.inputs) == [0, 1, 2]
    with torch.no_grad():
        assert not torch.allclose(model(**inputs).logits, logits)


def test_a_divergence_is_that_of_the_models_logits(family):
    name, model, inputs = family
    results = []

    def compute(ids):
        results.append(model(**inputs))
        return results[-1].loss

    tap = ModelHooks(model, hidden=True)
    step = Step(tap, Batch.from_inputs(inputs, **special_token_ids(None, model.config)), compute)
    first, second = step.run(None), step.run(make("neft_uniform", alpha=20).noise)
    got = step.divergence("kl", first, second)
    tap.detach()
    one, two = (result.logits[:, :-1][step.graded].log_softmax(-1) for result in results)
    assert got.item() == pytest.approx((one.exp() * (one - two)).sum(-1).mean().item(), rel=1e-4, abs=1e-9)


def test_the_soft_cap_has_other_names_too():
    torch.manual_seed(0)
    config = t.RecurrentGemmaConfig(
        **HEADS, lru_width=32, logits_soft_cap=0.01, block_types=["recurrent", "attention"]
    )
    model = t.RecurrentGemmaForCausalLM(config)
    ids = text_batch()["input_ids"]
    logits = model(ids, use_cache=False).logits
    hidden = model.model(ids, use_cache=False).last_hidden_state
    torch.testing.assert_close(LanguageHead(model)(hidden), logits)
    assert not torch.allclose(model.lm_head(hidden), logits)


def test_dropout_by_function_is_dropout():
    """OPT has no dropout modules."""
    for rate, expected in ((0.5, True), (0.0, False)):
        model, inputs = text("opt"), text_batch()
        model.config.dropout = rate
        for layer in find_layers(model):
            layer.dropout = rate
        if expected:
            assert attach(model, "r_drop", total_steps=1).loss(inputs).isfinite()
        else:
            with pytest.raises(NoiseError, match="without dropout"):
                attach(model, "r_drop", total_steps=1)


def relative(name, noise, **changes):
    """Return noise over signal on a language model whose table has the rms of all others'."""
    model, inputs = text(name, **changes), text_batch()
    table = find_embedding(model).weight
    torch.nn.init.normal_(table, std=0.5, generator=torch.Generator().manual_seed(4))
    _, measured = arrived(model, inputs, noise)
    return 10 ** (-measured["snr_db"] / 20)


@pytest.mark.cell("Mistakes of neftune_noise_alpha", "noise lost in scaled embeddings (Gemma)")
@pytest.mark.cell("Architectures", "{name}: alpha in space='raw' and 'scaled'")
@pytest.mark.parametrize("name", [*SCALED, "granite", "qwen3"])
def test_raw_noise_is_the_same_share_of_the_signal_on_every_family(name):
    raw, scaled = ({"name": "neft_uniform", "space": space} for space in ("raw", "scaled"))
    expected = relative("llama", raw)
    assert relative("llama", scaled) == expected
    assert relative(name, raw) == pytest.approx(expected, rel=1e-4)
    assert relative(name, scaled) == pytest.approx(expected / SCALED.get(name, 1.0), rel=1e-4)


def test_raw_noise_under_a_peft_wrapper():
    from peft import LoraConfig, get_peft_model

    for settings in ({"modules_to_save": ["embed_tokens"]}, {"target_modules": ["embed_tokens", "q_proj"]}):
        given = {"target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **settings}
        model = get_peft_model(text("gemma", tie_word_embeddings=False), LoraConfig(**given))
        delta, _ = arrived(model, text_batch(), {"name": "neft_uniform", "space": "raw"})
        assert delta[0].norm().item() == pytest.approx(5 / math.sqrt(3) * math.sqrt(32), rel=0.2)


@pytest.mark.cell("Architectures", "{family}")
def test_relative_noise_is_the_same_share_on_every_family(family):
    name, model, inputs = family
    _, measured = arrived(model, inputs, {"name": "token_relative", "rho": 0.1})
    assert measured["snr_db"] == pytest.approx(20, abs=0.3)


@pytest.mark.cell("Architectures", "{name}: its second token embedding stays clean")
@pytest.mark.parametrize("name", ["gemma3n", "gemma4"])
def test_a_second_token_embedding_stays_clean(name):
    model, inputs, seen = text(name), text_batch(), []
    second = model.get_submodule("model.embed_tokens_per_layer")
    second.register_forward_hook(lambda module, args, output: seen.append(output.detach()))
    arrived(model, inputs, {"name": "neft_uniform", "alpha": 50})
    assert len(seen) == 2 and torch.equal(*seen)


def test_placeholders_are_read_from_the_config_at_any_depth():
    for name, (make_model, count) in VISION.items():
        model, inputs = make_model(), image_batch(name)
        known = special_token_ids(None, model.config)
        assert PLACEHOLDER in known["media_ids"]
        batch = Batch.from_inputs(inputs, **known)
        assert batch.lengths[:, 0].tolist() == list(LENGTHS)
        assert batch.position[2][batch.real[2]].tolist() == list(range(14))
        places = torch.arange(count + 14).expand(3, -1)
        there = batch.gather(places, batch.position * batch.real, batch.document)
        assert torch.equal(there[batch.real], places[batch.real]), "gather knows the places around an image"
    assert special_token_ids(None, t.LlamaConfig())["media_ids"] == []
    nested = t.Phi4MultimodalConfig(vision_config={"image_token_id": 7}, audio_config={"audio_token_id": 8})
    assert {7, 8} <= set(special_token_ids(None, nested)["media_ids"])


def test_noise_of_a_document_does_not_depend_on_where_its_image_stands():
    model, inputs = llava(), image_batch("llava")
    tokens = special_token_ids(None, model.config)
    noise = make("neft_uniform").noise
    batches = [Batch.from_inputs(each, **tokens) for each in (inputs, text_batch())]
    deltas = [noise(torch.zeros(*b.input_ids.shape, 32), b)[b.real] for b in batches]
    assert torch.equal(*deltas)


def test_positions_of_three_planes_cut_no_document_at_an_image():
    model, inputs = qwen2_vl(), image_batch("qwen2_vl")
    told = {key: inputs[key] for key in ("image_grid_thw", "attention_mask", "mm_token_type_ids")}
    positions, _ = model.model.get_rope_index(inputs["input_ids"], **told)
    tokens = special_token_ids(None, model.config)
    plain = Batch.from_inputs(inputs, **tokens)
    for planes in (positions, torch.cat([torch.arange(16).expand(1, 3, 16), positions])):
        batch = Batch.from_inputs({**inputs, "position_ids": planes}, **tokens)
        assert torch.equal(batch.lengths[batch.real], plain.lengths[batch.real])
        assert torch.equal(batch.keys[batch.real], plain.keys[batch.real])


@pytest.mark.cell("Architectures", "{kind}")
@pytest.mark.parametrize(
    ("kind", "model", "message"),
    [
        (
            "t5 (an encoder-decoder)",
            lambda: t.T5ForConditionalGeneration(t.T5Config(vocab_size=64, d_model=32, num_layers=1, d_ff=32)),
            "must not be an encoder-decoder, got T5ForConditionalGeneration",
        ),
        (
            "resnet (no token embedding)",
            lambda: t.ResNetForImageClassification(t.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])),
            "must have a token embedding .* got ResNetForImageClassification",
        ),
    ],
    ids=["encoder-decoder", "no embedding"],
)
def test_models_that_cannot_take_noise_are_refused_by_name(refused, kind, model, message):
    with pytest.raises(NoiseError, match=message) as caught:
        attach(model(), "neft_uniform", total_steps=1)
    refused(caught)
