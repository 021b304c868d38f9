"""A vision-language model through TRL's SFTTrainer: images stay clean, and a document's length is that of its text."""

import math

import pytest
import torch
import transformers
import trl
import vision
from peft import LoraConfig
from small_models import apart, same, weights

from neft_zoo import NoiseError, SFTTrainer, attach

pytestmark = pytest.mark.later
ALPHA = 40
LOUD = {"name": "neft_uniform", "alpha": ALPHA}


@pytest.fixture
def build(config):
    """Return a maker of trainers of a Llava on 8 images with text."""

    def make(kind="prompt", cls=SFTTrainer, noise=LOUD, peft=None, **settings):
        processor = vision.processor()
        args = config(max_steps=2, max_length=None, **settings)
        extra = {} if noise is None else {"noise": noise}
        return cls(
            vision.llava(processor.tokenizer),
            args=args,
            train_dataset=vision.records(kind),
            processing_class=processor,
            peft_config=peft,
            **extra,
        )

    return make


@pytest.mark.cell("Batch layouts", "vision-language, {kind}")
@pytest.mark.parametrize("kind", ["prompt and completion", "messages"])
def test_text_has_its_noise_and_images_have_none(build, kind):
    trainer, calls = build(kind.split()[0], learning_rate=0.0), []
    model, now = trainer.model, {}
    model.register_forward_pre_hook(lambda m, args, kwargs: now.update(kwargs), with_kwargs=True)
    model.model.language_model.layers[0].register_forward_pre_hook(
        lambda m, args, kwargs: calls.append((dict(now), args[0].detach().clone())), with_kwargs=True
    )
    trainer.train()
    noisy = calls[:]
    assert len(noisy) == 2
    for inputs, seen in noisy:
        model.train()
        with torch.no_grad():
            model(**{name: inputs[name] for name in ("input_ids", "attention_mask", "pixel_values")})
        added, image = seen - calls[-1][1], inputs["input_ids"] == trainer.processing_class.image_token_id
        text = inputs["attention_mask"].bool() & ~image
        assert image.sum(1).tolist() == [vision.PLACES] * 4 and (~inputs["attention_mask"].bool()).any()
        assert not added[~text].any(), "noise on an image or on padding"
        for row in range(4):
            noise, paper = added[row][text[row]], ALPHA / math.sqrt(3 * text[row].sum() * 32)
            assert noise.square().mean().sqrt() / paper == pytest.approx(1, abs=6 * 0.45 / noise.numel() ** 0.5)


@pytest.mark.cell("Trainers", "SFT, a vision-language model with its processor")
def test_no_strength_is_plain_trl_bit_for_bit(build):
    runs = build(cls=trl.SFTTrainer, noise=None), build(noise={**LOUD, "alpha": 0}), build()
    for trainer in runs:
        trainer.train()
    plain, ours, noisy = (weights(trainer.model) for trainer in runs)
    assert same(plain, ours) and not same(plain, noisy)


@pytest.mark.cell("Adapters", "lora, vision-language model")
def test_lora_trains_the_text_and_is_clean_outside(build):
    trainer = build(peft=LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    trainer.train()
    assert all(line["noise/rms"] > 0 for line in trainer.state.log_history if "loss" in line)
    assert any(value.any() for name, value in trainer.model.state_dict().items() if "lora_B" in name)


@pytest.mark.parametrize("noise", ["symnoise", {"name": "r3f", "eps": 0.1}, {"name": "hype", "size": 0.01}])
def test_strategies_of_several_passes_and_of_layers_train(build, noise):
    trainer = build(noise=noise)
    trainer.train()
    for line in trainer.state.log_history[:2]:
        assert math.isfinite(line["loss"]) and line["noise/rms"] > 0


@pytest.mark.cell("Batch layouts", "vision-language, {setting}")
@pytest.mark.parametrize("setting", ["packing", "padding_free"])
def test_layouts_that_trl_has_not_for_images(build, refused, setting):
    with pytest.raises(ValueError, match="not supported for vision datasets") as caught:
        build(**{setting: True})
    refused(caught)


def features_and_inputs(trainer):
    """Train; return, per step, the token ids, what the projector made and what the first decoder layer was given."""
    seen, model = [], trainer.model
    model.model.multi_modal_projector.register_forward_hook(lambda m, args, output: seen.append([output.detach()]))
    model.register_forward_pre_hook(lambda m, args, kwargs: ids.append(kwargs["input_ids"]), with_kwargs=True)
    model.model.language_model.layers[0].register_forward_hook(
        lambda m, args, kwargs, output: seen[-1].append(args[0].detach()), with_kwargs=True
    )
    ids = []
    trainer.train()
    return [(each, *pair) for each, pair in zip(ids, seen, strict=True)]


@pytest.mark.cell("Batch layouts", "vision-language, noise on the images")
def test_visual_noise_is_on_projected_image_tokens_only(build):
    trainer = build(noise={"name": "visual_noise", "size": 0.5}, learning_rate=0.0)
    added = []
    for ids, features, given in features_and_inputs(trainer):
        image = ids == trainer.processing_class.image_token_id
        table = trainer.model.get_input_embeddings().weight
        assert torch.equal(given[~image], table[ids[~image]].detach()), "noise on text or on padding"
        added.append((given[image].double() - features.flatten(0, -2).double()) / 0.5)
    drawn = torch.cat(added)
    assert len(drawn) == 2 * 4 * vision.PLACES and len(drawn.unique(dim=0)) == len(drawn)
    assert drawn.mean().abs() < 6 / drawn.numel() ** 0.5
    assert drawn.square().mean().sqrt() == pytest.approx(1, abs=6 / (2 * drawn.numel()) ** 0.5)
    lines = [line["noise/rms"] for line in trainer.state.log_history if "loss" in line]
    assert lines == pytest.approx([each.square().mean().sqrt().item() * 0.5 for each in added], rel=1e-4)


def test_visual_noise_of_size_0_is_plain_trl_bit_for_bit(build):
    runs = build(cls=trl.SFTTrainer, noise=None), build(noise={"name": "visual_noise", "size": 0}), build()
    runs = (*runs, build(noise={"name": "visual_noise"}))
    for trainer in runs:
        trainer.train()
    plain, ours, text, images = (weights(trainer.model) for trainer in runs)
    assert same(plain, ours) and not same(plain, images) and not same(text, images)


def test_visual_noise_is_a_constant_to_the_gradient(build):
    """Against the model's own parts, put together without the package: the same loss and the same gradients."""
    trainer = build(noise="visual_noise")
    model, inputs = trainer.model.train(), next(iter(trainer.get_train_dataloader()))
    session = trainer.current_session()
    step = session.step(inputs, lambda given: model(**given).loss, key=3)
    loss = session.run(step)
    loss.backward()
    ours = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    (delta,) = step.passes[0].deltas.values()
    assert delta.any()
    session.detach()
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    image = inputs["input_ids"] == trainer.processing_class.image_token_id
    features = model.get_image_features(pixel_values=inputs["pixel_values"])
    features = torch.cat(list(getattr(features, "pooler_output", features)))
    embeds = embeds.masked_scatter(image[..., None], features + delta[image])
    alone = model(inputs_embeds=embeds, attention_mask=inputs["attention_mask"], labels=inputs["labels"]).loss
    alone.backward()
    assert loss.item() == pytest.approx(alone.item(), rel=1e-6)
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(ours[name], weight.grad, rtol=1e-4, atol=1e-7)


def test_visual_noise_refuses_a_model_that_puts_no_image_among_its_tokens(llama):
    with pytest.raises(NoiseError, match=r"a model that puts image, .* got LlamaForCausalLM"):
        attach(llama(), "visual_noise", total_steps=1)
    text = {"cross_attention_layers": [1], "num_hidden_layers": 2, "hidden_size": 8}
    model = llama()
    model.config = transformers.MllamaConfig(text_config=text)
    with pytest.raises(NoiseError, match="noise on placeholders needs a model that puts"):
        attach(model, "visual_noise", total_steps=1)


@pytest.mark.parametrize("reentrant", [False, True])
def test_visual_noise_is_the_same_under_checkpointing(build, reentrant):
    settings = dict(gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    runs = build(noise="visual_noise"), build(noise="visual_noise", **settings)
    for trainer in runs:
        trainer.train()
    assert apart(*(weights(trainer.model) for trainer in runs)) < 1e-5
