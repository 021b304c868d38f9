"""The front page's picture, "is it just early stopping?", and the picture of what a model reads while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from markupsafe import Markup

from neft_zoo import registry
from neft_zoo.compare.experiment import CHOSEN_BY, Experiment, Row
from neft_zoo.compare.formats import interval_text
from neft_zoo.compare.metrics import metric
from neft_zoo.compare.plots import FIRST, INK, SECOND, by_seed, mean_curve, new, style, svg
from neft_zoo.compare.reference import find_reference
from neft_zoo.noise.batch import Batch
from neft_zoo.passes.special_tokens import special_token_ids

from .traces import documents, model
from .wants import leading
from .words import row_name, setting, title

BESIDE = ("neft_uniform", "embedding_dropout")
DASHES = ("-", "--", ":", "-.")  # of plain training, the longest first
NOT_RUN = "*Not run here.*"


def drawn_rows(experiment: Experiment) -> list[Row]:
    """Return what the picture shows: plain training of all lengths, NEFTune and dropout at their defaults."""
    plain = [row for row in experiment.rows if row is experiment.none or row.is_shorter]
    noise = [row for name in BESIDE if (row := experiment.find(name)) is not None]
    return [row for row in [*plain, *noise] if row.values(CHOSEN_BY, "end")]


def early_stopping(experiments: Sequence[Experiment]) -> str:
    """Return the picture and what was measured in a line."""
    experiment = leading([*experiments])
    rows = drawn_rows(experiment) if experiment else []
    if experiment is None or not rows:
        return NOT_RUN
    seeds = set.intersection(*(set(row.values(CHOSEN_BY, "end")) for row in rows))
    with style():
        figure, axes = new(6.4, 4.2)
        colours = {name: colour for name, colour in zip(BESIDE, (FIRST, SECOND), strict=True)}
        dashes = iter(DASHES)
        for row in rows:
            curves = [curve for seed, curve in by_seed(row.records, CHOSEN_BY).items() if seed in seeds]
            colour, dash = (colours[row.entry], "-") if row.entry in colours else (INK, next(dashes, ":"))
            for curve in curves:
                axes.plot(*zip(*curve, strict=True), color=colour, linestyle=dash, linewidth=0.6, alpha=0.4)
            mean = mean_curve(curves)
            axes.plot(
                *zip(*mean, strict=True),
                dash,
                color=colour,
                linewidth=2,
                marker="o",
                markersize=4,
                label=row_name(row),
            )
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"test loss, {metric(CHOSEN_BY).unit}")
        axes.locator_params(axis="x", integer=True)
        figure.legend(loc="outside upper left", fontsize=10, ncols=2)
        names = ", ".join(row_name(row) for row in rows)
        picture = svg(figure, f"Test loss over epochs on {title(experiment)}: {names}; thin lines are seeds")
    text = Markup(
        '<div class="lead">{}<div><p class="verdict">{}</p><p>Thin lines are seeds, thick ones their mean over the {} '
        'seeds that all rows have, at equal cost; noise off. Measured on {}. <a href="compare.html">All its rows</a>.'
        "</p></div></div>"
    )
    return text.format(picture, early_verdict(experiment), len(seeds), setting(experiment))


def early_verdict(experiment: Experiment) -> Markup:
    """Return the answer to the picture's question in a sentence, by rule."""
    row = experiment.find("neft_uniform")
    if row is None or (CHOSEN_BY, "best") not in row.cells:
        return Markup("NEFTune was not run there.")
    digits = metric(CHOSEN_BY).digits
    end, best = (row.cells[CHOSEN_BY, when] for when in ("end", "best"))
    assert end.verdict is not None and best.verdict is not None
    said = (
        f"test loss minus plain training {interval_text(end.difference, digits)} at the end ({end.verdict.text()}), "
        f"{interval_text(best.difference, digits)} at the best checkpoint ({best.verdict.text()})"
    )
    word = best.verdict.word
    reference = find_reference(experiment)
    against = next((each for each in reference.rows if each[0] is row), None) if reference else None
    if reference and against:
        word = against[2].word
        said += (
            f", and {interval_text(against[1], digits)} against the best plain run of any length, "
            f"{row_name(reference.row)} ({against[2].text()})"
        )
    answers = {"better": "No", "worse": "Yes, and stopping earlier does more", "practically the same": "Yes"}
    undecided = "Not shown to be more than that" if end.verdict.word == "better" else "Undecided"
    return Markup("<b>{}.</b> <code>neft_uniform</code>: {}.").format(answers.get(word, undecided), said)


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
