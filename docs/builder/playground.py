"""Data for the playground's script, derived from the package so that the page cannot become outdated."""

from __future__ import annotations

import json
import math
from typing import Any

from neft_zoo import registry
from neft_zoo.noise.additive import AdditiveNoise
from neft_zoo.noise.scales import ByLength, Fixed, Relative
from neft_zoo.noise.schedules import Schedule, value_at
from neft_zoo.registry.strategy import Strategy

from .traces import model
from .words import SWITCHES

# Width, rms of the embeddings where noise is added, and the source of the rms.
MODELS = (
    ("Llama 3 8B", 4096, 0.01, "about what large LLaMAs have; neft-zoo doctor reads yours from its file"),
    ("Qwen 3 8B", 4096, 0.02, "the initializer's range, not measured; neft-zoo doctor reads yours from its file"),
    ("Gemma 2 9B", 3584, 1.0, "about 1, as the module multiplies by the square root of the width"),
    ("SmolLM2-135M", 576, 0.136, "measured on the real model of this site"),
)
SCALES = {ByLength: ("length", "alpha"), Fixed: ("fixed", "size"), Relative: ("relative", "rho")}


def strategies() -> list[dict[str, Any]]:
    """Return every entry whose noise has a closed form, with a further one for each of its switches."""
    entries = []
    for name in registry.builtin_names():
        switches = [key for key, value in registry.make(name).arguments.items() if isinstance(value, bool)]
        for changed in ({}, *({key: not registry.make(name).arguments[key]} for key in switches)):
            if described := describe(registry.make(name, **changed)):
                label = name + "".join(map(_switched, changed.items()))
                entries.append({"label": label, "name": name, "changed": changed, **described})
    return entries


def _switched(switch: tuple[str, bool]) -> str:
    key, value = switch
    return value and SWITCHES.get(f" {key}") or f" {key}: {str(value).lower()}"


def describe(strategy: Strategy) -> dict[str, Any] | None:
    """Return distribution, scale and default strength of a strategy, or None if its noise has no closed form."""
    noise = strategy.noise
    if strategy.family == "adversarial" or not isinstance(noise, AdditiveNoise) or type(noise.scale) not in SCALES:
        return None
    kind, attribute = SCALES[type(noise.scale)]
    strength = getattr(noise.scale, attribute)
    argument = next(key for key, value in strategy.arguments.items() if value == strength)
    if isinstance(strength, Schedule):
        strength = max(value_at(strength, step / 100) for step in range(101))
    what = type(noise.what).__name__.lower()
    return {
        "what": what,
        "rms": noise.what.rms,
        "bound": None if math.isinf(noise.what.bound) else noise.what.bound,
        "scale": kind,
        "argument": argument,
        "default": strength,
    }


def presets() -> list[dict[str, object]]:
    """Return models with their width and the rms of their embeddings, with its source."""
    table = model().get_input_embeddings().weight.detach().float()
    shipped = {
        "name": "the shipped model",
        "width": table.shape[1],
        "rms": float(f"{table.square().mean().sqrt():.2g}"),
        "source": "measured when this page was built",
    }
    return [{"name": name, "width": width, "rms": rms, "source": source} for name, width, rms, source in MODELS] + [
        shipped
    ]


def script() -> str:
    """Return the HTML elements with the data."""
    made = {"strategies": strategies(), "presets": presets()}
    element = '<script type="application/json" id="playground-{}">{}</script>'
    return "\n".join(element.format(key, json.dumps(value).replace("<", "\\u003c")) for key, value in made.items())
