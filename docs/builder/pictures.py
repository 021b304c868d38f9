"""Figures of a strategy's noise and of its schedule."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neft_zoo import registry
from neft_zoo.compare.plots import FAINT, FIRST, INK, SECOND, THIRD, new, style, svg
from neft_zoo.noise.schedules import value_at

from .traces import LENGTHS, LOOKED_AT, PROGRESS, Trace, schedule, trace

SIZE = (4.6, 2.7)
ABOVE = {"fontsize": 8, "ncols": 2, "loc": "lower right", "bbox_to_anchor": (1, 0.97)}  # covers no data


def pictures(name: str) -> str:
    """Return the figures of a strategy as HTML, or "" if it adds nothing."""
    made = trace(name)
    with style():
        drawn = [_changing(name, *changing) if (changing := schedule(made.strategy)) else ""]
        if made.token is not None:
            drawn = [_histogram(name, made), _norms(name, made), *drawn]
        if made.edited:
            drawn = [_edited(name, made), *drawn]
        if made.weights is not None:
            drawn = [_weights(name, made), *drawn]
    drawn = [each for each in drawn if each]
    return f'<div class="plots">{"".join(drawn)}</div>' if drawn else ""


def made_from(name: str) -> str:
    """Return a sentence on the model and text behind the figures."""
    made = trace(name)
    changed = [
        f"`{key}` {made.strategy.to_dict()[key]}"
        for key in ("layers", "steps")
        if key in made.strategy.arguments and made.strategy.arguments[key] != registry.make(name).arguments[key]
    ]
    but = f", with {' and '.join(changed)} on this small model" if changed else ""
    return f"Drawn by the package when this page was built: the shipped model, real text, default arguments{but}."


def small() -> tuple[Figure, Axes]:
    """Return a figure with fixed margins, since laying out eighty figures takes half as long as drawing them."""
    figure, axes = new(*SIZE)
    figure.set_layout_engine("tight")  # the constrained engine does not allow setting margins
    figure.set_layout_engine("none")
    figure.subplots_adjust(left=0.14, right=0.97, bottom=0.19, top=0.92)
    return figure, axes


def _histogram(name: str, made: Trace) -> str:
    assert made.token is not None
    figure, axes = small()
    rms = math.sqrt(sum(value * value for value in made.token) / len(made.token))
    largest = max(made.bound or 0.0, *(abs(value) for value in made.token)) * 1.15
    axes.hist(made.token, bins=41, range=(-largest, largest), color=FIRST)
    for side in (-1, 1):
        if made.bound:
            axes.axvline(side * made.bound, color=INK, linewidth=1.2, label="bound" if side > 0 else None)
        axes.axvline(side * rms, color=SECOND, linewidth=1.2, linestyle="--", label="rms" if side > 0 else None)
    axes.set_xlabel("what is added to a feature of the token")
    axes.set_ylabel("features")
    axes.ticklabel_format(axis="x", style="sci", scilimits=(-2, 3))
    axes.locator_params(axis="x", nbins=5)
    axes.legend(**ABOVE)
    bound = f", bound {made.bound:.3g}" if made.bound else ""
    length = LENGTHS[LOOKED_AT]
    caption = f"One token of a document of {length}: rms {rms:.3g}{bound}."
    return svg(figure, f"{name}: histogram of what is added to one token, rms {rms:.3g}{bound}", caption)


def _norms(name: str, made: Trace) -> str:
    figure, axes = small()
    lengths = [length for length, *_ in made.norms]
    document, token = ([norms[place] for norms in made.norms] for place in (1, 2))
    axes.plot(lengths, document, "o-", color=FIRST, label="whole document", markersize=4)
    axes.plot(lengths, token, "s--", color=SECOND, label="mean of a token", markersize=4)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(set(lengths)), [str(length) for length in sorted(set(lengths))])
    axes.set_ylim(0, max(max(document), 1e-12) * 1.3)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    axes.set_xlabel("tokens of the document")
    axes.set_ylabel("norm of the noise")
    axes.legend(**ABOVE)
    ends = f"{document[0]:.3g} at {lengths[0]} tokens, {document[-1]:.3g} at {lengths[-1]}"
    return svg(figure, f"{name}: norm of the noise against length: {ends}", f"Norm against length: {ends}.")


def _edited(name: str, made: Trace) -> str:
    figure, axes = new(9.2, 1.3)
    colours = {"prompt": FAINT, "graded": SECOND, "hidden": FIRST}
    for kind, colour in colours.items():
        places = [place for place, each in enumerate(made.edited) if each == kind]
        axes.bar(places, [1] * len(places), width=0.85, color=colour, label=kind)
    axes.set_yticks([])
    axes.set_xlabel("token")
    axes.legend(ncols=3, fontsize=8, loc="upper left", bbox_to_anchor=(0, 1.4))
    hidden = made.edited.count("hidden") / max(1, len(made.edited) - made.edited.count("prompt"))
    caption = f"One document, {PROGRESS:.0%} into training: {hidden:.0%} of the graded tokens are hidden."
    return svg(figure, f"{name}: {caption}", caption)


def _weights(name: str, made: Trace) -> str:
    assert made.weights is not None
    figure, axes = small()
    axes.hist(made.weights, bins=61, color=FIRST)
    axes.set_xlabel("change of a weight over the matrix's standard deviation")
    axes.set_ylabel("weights")
    rms = math.sqrt(sum(value * value for value in made.weights) / len(made.weights))
    caption = f"One matrix at its noisiest: rms of the change {rms:.3g} standard deviations."
    return svg(figure, f"{name}: {caption}", caption)


def _changing(name: str, argument: str, value: object) -> str:
    figure, axes = small()
    steps = [step / 60 for step in range(61)]
    axes.plot(steps, [value_at(value, step) for step in steps], color=THIRD, linewidth=2)  # type: ignore[arg-type]
    axes.set_xlabel("fraction of training")
    axes.set_ylabel(argument)
    axes.set_ylim(bottom=0)
    return svg(figure, f"{name}: {argument} over training", f"`{argument}` over training.".replace("`", ""))
