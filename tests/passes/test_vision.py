"""A vision-language model through TRL's SFTTrainer: images stay clean, and a document's length is that of its text."""

import math

import pytest
import torch
import trl
import vision
from conftest import same, weights
from peft import LoraConfig

from neft_zoo import SFTTrainer

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
