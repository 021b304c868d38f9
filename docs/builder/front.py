"""The front page's figure, "is it just early stopping?", and the figure of noisy embeddings."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import replace

import torch
from markupsafe import Markup

from neft_zoo import registry
from neft_zoo.compare.experiment import CHOSEN_BY, POINTS, STEPS, Experiment, Row
from neft_zoo.compare.formats import interval_text
from neft_zoo.compare.metrics import metric
from neft_zoo.compare.plots import FIRST, INK, SECOND, by_seed, mean_curve, new, style, svg
from neft_zoo.compare.reference import comparable, find_reference
from neft_zoo.compare.statistics import Difference
from neft_zoo.compare.verdicts import Verdict
from neft_zoo.noise.batch import Batch
from neft_zoo.passes.special_tokens import special_token_ids

from .tables import unbroken
from .traces import documents, model
from .wants import leading
from .words import is_real, regime, row_name, setting, title

BESIDE = ("neft_uniform", "embedding_dropout")
DASHES = ("-", "--", ":", "-.")  # of plain training, longest first
NOT_RUN = "*Not run here.*"
SIZE = (4.8, 3.4)  # inches; a phone shows them at three quarters


def drawn_rows(experiment: Experiment) -> tuple[list[Row], set[int]]:
    """Return the rows of the figure, and the seeds that all of them have.

    They are plain training of all lengths, and NEFTune and dropout at their defaults.
    """
    lengths = [row for row in experiment.rows if row.is_other_length]
    noise = [row for name in BESIDE if (row := experiment.find(name)) is not None]
    rows, shared = comparable([experiment.none, *noise[:1], *lengths, *noise[1:]], CHOSEN_BY, "end")
    return sorted(rows, key=lambda row: row in noise), shared


def early_stopping(experiments: Sequence[Experiment]) -> str:
    """Return the figure and its result in a line: of the leading experiment, then of a real model's few runs."""
    first = leading([*experiments])
    if first is None:
        return NOT_RUN
    others = [each for each in experiments if each.budget == STEPS and is_real(each) and each.find(BESIDE[0])]
    shown = [first, *others[: 0 if is_real(first) else 1]]
    return "\n\n".join(map(_measured, shown))


def _measured(experiment: Experiment) -> Markup:
    rows, seeds = drawn_rows(experiment)
    lines = f"Thick lines are means over the {len(seeds)} seeds that all rows have, thin ones seeds"
    lines = lines if len(seeds) > 1 else "One seed so far, from which nothing follows"
    missing = "" if any(row.is_other_length for row in rows) else " Plain training of other lengths was not run there."
    text = Markup(
        '<div class="lead">{}<div>{}<p>{}: {}. {}; the noise is off, and a step costs the same '
        'in all rows.{} <a href="compare.html#experiment={}">All its rows</a>.</p></div></div>'
    )
    measured_on = setting(experiment, rows)
    return text.format(
        _drawn(experiment, rows, seeds),
        early_verdict(experiment),
        regime(experiment),
        measured_on,
        lines,
        missing,
        experiment.key,
    )


def _drawn(experiment: Experiment, rows: Sequence[Row], seeds: Container[int]) -> Markup:
    """Draw the test loss over epochs, with thin lines for seeds and thick lines for their means."""
    colours = dict(zip(BESIDE, (FIRST, SECOND), strict=True))
    dashes = iter(DASHES)
    with style():
        figure, axes = new(*SIZE)
        for row in rows:
            curves = [curve for seed, curve in by_seed(row.records, CHOSEN_BY).items() if seed in seeds]
            colour, dash = (colours[row.entry], "-") if row.entry in colours else (INK, next(dashes, ":"))
            for curve in curves:
                axes.plot(*zip(*curve, strict=True), color=colour, linestyle=dash, linewidth=0.6, alpha=0.4)
            thick = {"color": colour, "linestyle": dash, "linewidth": 2, "marker": "o", "markersize": 4}
            axes.plot(*zip(*mean_curve(curves), strict=True), **thick, label=_line_name(row, experiment))
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"test loss, {metric(CHOSEN_BY).unit}")
        axes.locator_params(axis="x", integer=True)
        figure.legend(loc="outside upper left", ncols=2, fontsize="small")
        names = ", ".join(_line_name(row, experiment) for row in rows)
        return svg(figure, f"Test loss over epochs on {title(experiment)}: {names}; thin lines are seeds")


def _line_name(row: Row, experiment: Experiment) -> str:
    """Return the label of a line: plain training by its epochs."""
    name, epochs = row_name(row), experiment.config.get("num_train_epochs")
    if row is experiment.none and isinstance(epochs, int | float):
        name += f", {epochs:g} epoch{'s' * (epochs != 1)}"
    return re.sub(r"^none\b", "plain training", name)


LESS = "It does less here", "NEFTune ends with a higher test loss than plain training."
BETTER = "No", "NEFTune has a lower test loss than plain training of any length."
# What the other verdicts on NEFTune against the best plain run of any length say of the picture's question, which is
# about stopping earlier: where that run is shorter than NEFTune's, as long, or longer.
SHORTER = {
    "worse": ("Yes, and stopping earlier does more", "The best plain run has a lower test loss than NEFTune."),
    "practically the same": ("Yes", "The best plain run has practically the test loss of NEFTune."),
}
# The same, where NEFTune itself is not shown to end lower than plain training of its length.
NO_EFFECT = {
    "worse": (
        "Stopping earlier does more",
        "NEFTune is not shown to end with a lower test loss than plain training, and the best plain run, a shorter "
        "one, has a lower test loss than NEFTune.",
    ),
}
AS_LONG = {
    "worse": LESS,
    "practically the same": (
        "It changes nothing here",
        "NEFTune has practically the test loss of plain training, whose whole length is the best one here.",
    ),
}
LONGER = {
    "worse": ("No: training longer does more", "The best plain run, a longer one, has a lower test loss."),
    "practically the same": (
        "No: training longer does as much",
        "The best plain run, a longer one, has practically the same test loss.",
    ),
}
# Where that verdict is missing or undecided, by the one at the end of training.
ENDS = {
    "better": (
        "Not shown to be more than that",
        "NEFTune ends with a lower test loss than plain training, but these seeds do not tell it from the best plain "
        "run.",
    ),
    "worse": LESS,
}
NO_LENGTHS = "Undecided", "No plain training of another length was run here at enough seeds."
UNDECIDED = "Undecided", "These seeds do not tell NEFTune from plain training, or from a run of another length."


def early_verdict(experiment: Experiment) -> Markup:
    """Return the answer to the figure's question in a sentence, by rule, and the differences it is based on."""
    row = experiment.find("neft_uniform")
    if row is None or (CHOSEN_BY, "best") not in row.cells:
        return Markup('<p class="verdict">NEFTune was not run there.</p>')
    reference = find_reference(experiment)
    compared = [(f"plain training, {words}", row.cells[CHOSEN_BY, when]) for when, words in POINTS.items()]
    lines = [(words, cell.difference, cell.verdict) for words, cell in compared]
    for other, difference, verdict in reference.rows if reference else ():
        if reference is not None and other is row:
            length = _line_name(reference.row, experiment).removeprefix("plain training, ")
            lines.append((f"the best plain run of any length ({length})", difference, verdict))
    ends, last = (line[-1].word if line[-1] else "" for line in (lines[0], lines[-1]))
    answer = NO_LENGTHS
    if reference is not None and len(lines) > len(compared):
        longer = (reference.row.steps or 0) - (experiment.none.steps or 0)
        shorter = SHORTER if ends == "better" else NO_EFFECT if ends != "worse" else {}
        answers = shorter if longer < 0 else LONGER if longer else AS_LONG
        answer = BETTER if last == "better" else answers.get(last) or ENDS.get(ends, UNDECIDED)
    text = Markup(
        '<p class="verdict"><b>{}.</b> {}</p>'
        "<p>Test loss of <code>neft_uniform</code>{}, in {}, minus that of</p><ul>{}</ul>"
    )
    return text.format(*answer, row.failures, metric(CHOSEN_BY).unit, Markup("").join(_line(*line) for line in lines))


def _line(words: str, difference: Difference | None, verdict: Verdict | None) -> Markup:
    """Return a difference with its interval and verdict, and below what else is known of them."""
    digits = metric(CHOSEN_BY).digits
    whole = interval_text(difference, digits)
    text = interval_text(difference and replace(difference, over_records=None), digits)
    word = verdict.word if verdict is not None and verdict.word != "one seed" else ""
    more = [whole.removeprefix(text).strip(", "), verdict.text(digits).removeprefix(word).strip(" ()") if word else ""]
    small = Markup("<br><small>{}</small>").format("; ".join(filter(None, more))) if any(more) else ""
    return Markup("<li>{}: <b>{}</b>{}{}</li>").format(words, unbroken(text), f", {word}" if word else "", small)


TOKENS, FEATURES, ROW = 12, 40, -1
WORDS = (
    ("token embeddings", "evaluation sees these"),
    ("+  noise, new in every step", "at most alpha / sqrt(tokens · width)"),
    ("=  what the model is trained on", "data, loss and trainer stay TRL's"),
)


def picture() -> str:
    """Return embeddings, noise and sum of a few real tokens, on one colour scale."""
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
