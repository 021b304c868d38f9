"""The picture of the front page: what a model reads while it trains, and what it reads otherwise."""

from __future__ import annotations

from dataclasses import replace

import torch

from neft_zoo import registry
from neft_zoo.batch import Batch

from .figures import INK, Figure, style, svg
from .traces import documents, model

TOKENS, FEATURES, ROW = 12, 40, -1


def picture() -> str:
    """Return embedding, noise and sum of a few real tokens, on one colour scale."""
    inputs, known, _ = documents()
    one = {name: values[ROW:, :TOKENS] for name, values in inputs.items()}
    batch = Batch.from_inputs(one, key=1, progress=0.5, **known)
    embeds = model().get_input_embeddings()(one["input_ids"]).detach()
    whole = replace(batch, lengths=torch.full_like(batch.lengths, inputs["input_ids"].shape[1]))
    noise = registry.make("neft_uniform").noise
    delta = noise(embeds, whole)  # type: ignore[operator, misc]
    with style():
        figure = Figure(figsize=(9, 2.7), layout="constrained")
        axes = figure.subplots(1, 3)
        limit = 2.5 * embeds.std().item()
        drawn = (embeds, delta, embeds + delta)
        titles = ("token embeddings", "+  noise, new in every step", "=  what the model is trained on")
        for each, values, title in zip(axes, drawn, titles, strict=True):
            shown = values[0, :, :FEATURES].numpy()
            each.imshow(shown, cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
            each.set_title(title, fontsize=11, color=INK, loc="left")
            each.set_xticks([])
            each.set_yticks([])
        axes[0].set_ylabel("tokens")
        axes[0].set_xlabel("features; evaluation sees these")
        axes[1].set_xlabel("at most alpha / sqrt(tokens · width)")
        axes[2].set_xlabel("data, loss and trainer stay TRL's")
        told = "Three panels of coloured cells, tokens by features: embeddings, the noise that is added, and their sum"
        return svg(figure, told, "neft_uniform at alpha 5 on the shipped model, drawn by the package itself.")
