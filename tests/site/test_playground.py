"""The playground in Chromium computes what the package does."""

import pytest
import torch

from neft_zoo import make
from neft_zoo.noise.batch import Batch
from neft_zoo.passes.adding import add_rounded

SETTINGS = [
    ("neft_uniform", 5, 512, 512, 0.02),
    ("neft_uniform", 5, 512, 1024, 1.0),
    ("neft_gaussian", 15, 256, 768, 0.5),
    ("neft_laplace", 5, 256, 768, 1.0),
    ("symnoise", 10, 128, 1024, 1.0),
    ("neft_sphere", 5, 256, 512, 0.2),
    ("token_relative", 0.003, 256, 512, 0.05),
    ("pdr", 0.001, 256, 512, 0.3),
]


def by_package(name, strength, length, width, embedding, dtype):
    """Return what the package adds to normal embeddings, measured on one document."""
    argument = {"token_relative": "rho", "pdr": "eps"}.get(name, "alpha")
    noise = make(name, **{argument: float(strength)}).noise
    torch.manual_seed(0)
    ids = torch.randint(0, 1000, (1, length))
    embeds = (torch.randn(1, length, width) * embedding).to(dtype)
    batch = Batch.from_inputs({"input_ids": ids}, key=7)
    delta = noise(embeds, batch)
    same = [(embeds + delta.to(dtype)) == embeds, add_rounded(embeds, delta, batch) == embeds]
    rms = delta.square().mean().sqrt().item()
    return {
        "rms": rms,
        "document": delta.norm().item(),
        "token": delta.norm(dim=-1).square().mean().sqrt().item(),
        "snr": 20 * torch.tensor(embeds.float().square().mean().sqrt().item() / rms).log10().item(),
        "largest": delta.abs().max().item(),
        "nearest": same[0].float().mean().item(),
        "package": same[1].float().mean().item(),
    }


slow = pytest.mark.slow


@pytest.mark.parametrize("dtype", ["bfloat16", *(pytest.param(each, marks=slow) for each in ("float16", "float32"))])
def test_the_playground_computes_what_the_package_does(visit, dtype):
    page = visit("playground.html")
    for name, *numbers in SETTINGS:
        page.select_option("[name=strategy]", label=name)
        for field, value in zip(("strength", "tokens", "width", "embedding"), numbers, strict=True):
            page.fill(f"[name={field}]", str(value))
        page.select_option("[name=dtype]", dtype)
        keys = ("bound", "rms", "token", "document", "snr", "nearest", "package")
        told = {key: page.locator(f"#playground-{key}").get_attribute("data-value") for key in keys}
        measured = by_package(name, *numbers, getattr(torch, dtype))
        for key in ("rms", "token", "document"):
            assert float(told[key]) == pytest.approx(measured[key], rel=0.01), (name, key)
        assert float(told["snr"]) == pytest.approx(measured["snr"], abs=0.1), name
        for key in ("nearest", "package"):
            assert float(told[key]) == pytest.approx(measured[key], abs=0.01), (name, numbers, key)
        if told["bound"]:
            assert 0.99 * float(told["bound"]) < measured["largest"] <= float(told["bound"]) * 1.0001, name


def test_the_playground_refuses_what_is_no_number(visit):
    page = visit("playground.html")
    page.fill("[name=tokens]", "0")
    assert page.locator("#playground-wrong").is_visible()
    page.fill("[name=tokens]", "10")
    assert not page.locator("#playground-wrong").is_visible()


def test_a_preset_fills_in_the_model_and_the_result_is_code(visit):
    page = visit("playground.html")
    assert page.input_value("[name=preset]") == "Llama 3 8B" and "Llama 3 8B" in page.inner_text("#playground-source")
    page.select_option("[name=preset]", label="SmolLM2-135M")
    assert (page.input_value("[name=width]"), page.input_value("[name=embedding]")) == ("576", "0.136")
    assert "measured" in page.inner_text("#playground-source")
    page.fill("[name=tokens]", "70")
    assert float(page.locator("#playground-snr").get_attribute("data-value")) == pytest.approx(19.5, abs=0.1)
    assert page.locator("#playground-curve polyline").count() == 1
    page.select_option("[name=strategy]", label="neft_gaussian, energy of uniform noise")
    code = page.inner_text("#playground-snippet code")
    noise = eval(code[code.index("{") : code.rindex("}") + 1])
    assert make(noise).arguments["match_rms"] is True
    page.fill("[name=width]", "100")
    assert page.input_value("[name=preset]") == "", "a width that was typed is no preset's"
