"""The picture of the front page: what a model reads while it trains, and what it reads otherwise."""

from __future__ import annotations

from dataclasses import replace

import torch

from neft_zoo import registry
from neft_zoo.compare.plots import INK, new, style, svg
from neft_zoo.noise.batch import Batch
from neft_zoo.passes.special_tokens import special_token_ids

from .traces import documents, model

TOKENS, FEATURES, ROW = 12, 40, -1
WORDS = (
    ("token embeddings", "evaluation sees these"),
    ("+  noise, new in every step", "at most alpha / sqrt(tokens · width)"),
    ("=  what the model is trained on", "data, loss and trainer stay TRL's"),
)


def picture() -> str:
    """Return embedding, noise and sum of a few real tokens, on one colour scale."""
    inputs, tokenizer, _ = documents()
    one = {name: values[ROW:, :TOKENS] for name, values in inputs.items()}
    batch = Batch.from_inputs(one, key=1, progress=0.5, **special_token_ids(tokenizer))
    embeds = model().get_input_embeddings()(one["input_ids"]).detach()
    document = replace(batch, lengths=torch.full_like(batch.lengths, inputs["input_ids"].shape[1]))
    noise = registry.make("neft_uniform").noise
    delta = noise(embeds, document)  # type: ignore[operator, misc]
    limit = 2.5 * embeds.std().item()
    panels = [
        _panel(values, limit, *words) for values, words in zip((embeds, delta, embeds + delta), WORDS, strict=True)
    ]
    caption = (
        "Rows are tokens, columns features: `neft_uniform` at alpha 5 on the shipped model, drawn by the package."
    )
    return f'<div class="plots panels">{"".join(panels)}</div>\n\n{caption}'


def _panel(values: torch.Tensor, limit: float, title: str, below: str) -> str:
    with style():
        figure, axes = new(3.2, 1.9)
        shown = values[0, :, :FEATURES].numpy()
        axes.imshow(shown, cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        axes.set_title(title, fontsize=11, color=INK, loc="left")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel(below)
        return svg(figure, f"Coloured cells, tokens by features: {title}")
