"""The image that link previews of the site show."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure

PAPER, INK, ACCENT, PALE = "#1f2541", "#ffffff", "#ffb74d", "#9fa8da"


def card() -> bytes:
    """Return a PNG of 1200 by 630 pixels: a curve, the same with noise, and a description of the package."""
    figure = Figure(figsize=(12, 6.3), dpi=100, facecolor=PAPER)
    axes = figure.add_axes((0.0, 0.06, 1.0, 0.4))
    across = np.linspace(0, 4 * np.pi, 240)
    wave = np.sin(across) * np.exp(-across / 14)
    noise = np.random.default_rng(0).uniform(-0.35, 0.35, across.size)
    axes.plot(across, wave + noise, ".", color=ACCENT, markersize=7)
    axes.plot(across, wave, color=PALE, linewidth=5)
    axes.axis("off")
    figure.text(0.07, 0.78, "neft-zoo", color=INK, fontsize=64, fontweight="bold")
    figure.text(0.07, 0.64, "Embedding noise for fine-tuning language models,", color=INK, fontsize=26)
    figure.text(0.07, 0.55, "with results that show what each strategy does", color=INK, fontsize=26)
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor=PAPER, metadata={"Software": None})
    return file.getvalue()
