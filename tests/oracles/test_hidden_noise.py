"""Oracles of noise on hidden states, written from the papers; draws are observed from outside (observed_draws.py).

hype            HyPe, arXiv 2212.08853, and its hype_modeling_bert.py: noise on what each layer reads
visual_noise    NoiseBoost, arXiv 2405.20081: s N(0, 1) on the projected image features
"""

import copy

import pytest
import torch
import vision
from observed_draws import TWO, added, agree, alone, likely, many, mean_of_graded, per_token, run, small, uncorrelated
from scipy import stats

MANY = many()
REAL = MANY["attention_mask"].bool()


def layer_noises(seen, model, inputs=MANY):
    """Return what was added to what each of the two layers read."""
    return [added(seen, model, inputs), seen.read[1][-1] - seen.returned[0][-1]]


@pytest.mark.parametrize("relative", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", ["gaussian", "uniform"])
def test_hype_adds_centred_noise_to_what_every_layer_reads(llama, what, relative):
    model = small(llama)
    noise = {"name": "hype", "size": 0.01, "what": what, "relative": relative}
    (seen,) = run(model, noise, MANY, backward=False)
    noises = layer_noises(seen, model)
    for extra, read in zip(noises, seen.read, strict=True):
        unit = (read[-1] - extra).square().mean(-1, keepdim=True).sqrt() if relative else 1
        likely((extra / (0.01 * unit))[REAL], stats.norm if what == "gaussian" else stats.uniform(-1, 2))
    uncorrelated(noises[0][REAL], noises[1][REAL])


@pytest.mark.parametrize("settings", [{"size": 0.1, "relative": True}, {"size": 0.01, "layers": [1]}])
def test_hypes_loss_and_gradients(llama, settings):
    model = small(llama)
    (seen,) = run(model, {"name": "hype", **settings})
    noises = layer_noises(seen, model, TWO)
    assert [bool(noise.any()) for noise in noises] == ["layers" not in settings, True]
    agree(seen, alone(model, before_layers=noises))


def images(rows):
    """Return a tiny Llava in float64 with a batch of one image per row, and where the images' tokens are."""
    processor = vision.processor()
    model, image = vision.llava(processor.tokenizer).double().train(), vision.PLACES * [len(processor.tokenizer) - 1]
    inputs = many(rows, 8)
    inputs["input_ids"][:, 1 : 1 + len(image)] = torch.tensor(image)
    inputs["attention_mask"][:], inputs["labels"][:, : 1 + len(image)] = 1, -100
    inputs["pixel_values"] = torch.randn(rows, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    return model, inputs, inputs["input_ids"] == image[0]


@pytest.mark.filterwarnings("ignore:.*louder than the embeddings")
def test_visual_noise_is_added_to_projected_image_features_only():
    model, inputs, places = images(rows=32)
    (seen,) = run(model, "visual_noise", inputs, text=model.model.language_model)
    noise, clean = seen.read[0][-1].clone(), copy.deepcopy(model).train()
    features = torch.cat(list(clean.model.get_image_features(inputs["pixel_values"]).pooler_output))
    noise -= torch.where(
        places[..., None],
        torch.zeros_like(noise).masked_scatter(places[..., None], features.detach()),
        clean.model.language_model.embed_tokens.weight.detach()[inputs["input_ids"]],
    )
    assert noise[~places].abs().max() < 1e-12
    per_token(noise[places] / 0.5)
    clean.model.multi_modal_projector.register_forward_hook(lambda _, __, out: out + noise[places].reshape(out.shape))
    loss = mean_of_graded(clean, inputs)
    loss.backward()
    expected = {key: torch.zeros_like(w) if w.grad is None else w.grad for key, w in clean.named_parameters()}
    agree(seen, (loss.detach(), expected))
