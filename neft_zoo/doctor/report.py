"""DoctorReport: the numbers, the table and the advice of `neft-zoo doctor`."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from neft_zoo.console import printable, show_table, terminal_width

HOOK, OURS = KINDS = ("neftune_noise_alpha", "neft-zoo")
FAINT = 30  # dB between embeddings and noise above which noise has little effect


@dataclass(frozen=True)
class Measures:
    """What one kind of noise adds.

    Attributes:
        ratio_min, ratio_median, ratio_max: rms per document over the paper's.
        padding_share: share of the noise's energy on padding, in [0, 1]; None without noise, as are all from
            `rank_correlation` on.
        no_grad_ratio: like `ratio_median`, in a pass without gradients in train mode.
        decoded_ratio: rms on a decoded token over the paper's for the prompt.
        rank_correlation: correlation of the noise on two data-parallel ranks.
        lost: share of coordinates that rounding leaves unchanged.
        rounded_ratio: rms after rounding over rms before.
        snr_db: 20 log10(embedding rms / noise rms).
    """

    ratio_min: float
    ratio_median: float
    ratio_max: float
    padding_share: float | None
    no_grad_ratio: float
    decoded_ratio: float
    rank_correlation: float | None
    lost: float | None = None
    rounded_ratio: float | None = None
    snr_db: float | None = None


@dataclass(frozen=True)
class Layout:
    """The shape and content of the batches.

    Attributes:
        batches: number of measured batches.
        rows, width: shape of the first one.
        documents: number of documents in the first one.
        real_tokens: share of real tokens among all positions, in [0, 1].
        packing: TRL's packing strategy; None without packing.
        images: whether there are images.
        dtype: of the embeddings.
    """

    batches: int
    rows: int
    width: int
    documents: int
    real_tokens: float
    packing: str | None
    images: bool
    dtype: str


@dataclass(frozen=True)
class DoctorReport:
    """What stock noise and a strategy add to a recipe's batches.

    Attributes:
        model: name or folder.
        real_model: whether the real model was run, instead of a shrunk one.
        noise: the strategy, as for `make`.
        alpha: of both kinds.
        layout: of the batches.
        weights: "real weights" or "random weights", for the embeddings at the real width.
        measured: by kind of noise, `HOOK` and `OURS`.
    """

    model: str
    real_model: bool
    noise: dict[str, Any]
    alpha: float
    layout: Layout
    weights: str
    measured: dict[str, Measures]

    def to_dict(self) -> dict[str, Any]:
        """Return the report with its advice as JSON types; the layout's fields are at the top level."""
        values = asdict(self)
        layout = values.pop("layout")
        first = {name: values.pop(name) for name in ("model", "real_model", "noise", "alpha")}
        return {**first, **layout, **values, "advice": self.advice}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DoctorReport:
        """Return the report from the output of `to_dict`."""
        own = {field.name: values[field.name] for field in fields(cls) if field.name not in ("layout", "measured")}
        layout = Layout(**{field.name: values[field.name] for field in fields(Layout)})
        measured = {kind: Measures(**numbers) for kind, numbers in values["measured"].items()}
        return cls(**own, layout=layout, measured=measured)

    @property
    def advice(self) -> list[str]:
        """The advice, in one to three sentences."""
        hook, ours, layout = self.measured[HOOK], self.measured[OURS], self.layout
        sentences = []
        if layout.packing == "wrapped":
            sentences.append(
                "packing_strategy wrapped keeps no borders of documents, so a row counts as one: choose bfd."
            )
        elif hook.ratio_min > 0.95:
            sentences.append(
                "Documents here have neither padding nor neighbours in their row: the hook adds the paper's noise."
            )
        else:
            sentences.append(
                f"The hook scales by {self.counted_length()}, so a document gets {hook.ratio_median:.2f} of the "
                f"paper's noise here, and another share in another batch; neft_uniform counts the document's own "
                "tokens."
            )
        if ours.snr_db is not None and ours.snr_db > FAINT and self.noise["name"] != "token_relative":
            sentences.append(
                f"Embeddings are {ours.snr_db:.0f} dB above the noise{self.guess}, as in models that scale them "
                "(Gemma) or on long documents: token_relative sets the noise in proportion to them."
            )
        if hook.lost is not None and hook.lost > 0.05:
            sentences.append(
                f"Rounding to {layout.dtype} leaves {hook.lost:.0%} of the hook's coordinates as they were"
                f"{self.guess}; float32 weights under autocast lose none."
            )
        if len(sentences) < 3:
            sentences.append("Sampling or scoring in train mode meets the hook's noise, and never this package's.")
        return sentences

    @property
    def guess(self) -> str:
        """A note for numbers at the model's width if its weights are not on this machine."""
        return "" if self.weights == "real weights" else " (a guess, from random weights)"

    def counted_length(self) -> str:
        """Return what the hook uses as the length of a document."""
        if self.layout.documents > self.layout.rows:
            return f"a row of {self.layout.documents} documents"
        if self.layout.images:
            return "images and padding as text"
        return "padding as text" if self.layout.real_tokens < 1 else "the whole row"


def rows(report: DoctorReport) -> list[tuple[str, str, str, str]]:
    """Return the rows of the table: measure, both kinds of noise, remark."""

    def row(what: str, form: str, *names: str, remark: str = "") -> tuple[str, str, str, str]:
        cells = []
        for kind in KINDS:
            values = [getattr(report.measured[kind], name) for name in names]
            cells.append("-" if None in values else " / ".join(form.format(value) for value in values))
        return what, cells[0], cells[1], remark

    layout = report.layout
    wide = f"at the model's {report.weights}" if report.weights == "real weights" else "random weights: a guess"
    faithful = report.measured[HOOK].ratio_min > 0.95
    amount = "as in the paper" if faithful else f"the hook counts {report.counted_length()}"
    amount = "by row: wrapped keeps no borders" if layout.packing == "wrapped" else amount
    nobody = "padding and images" if layout.images else "padding"
    lost = "float32 loses nothing" if layout.dtype == "float32" else f"{layout.dtype}, {wide}"
    return [
        row("noise per document (min / median / max)", "{:.3f}", *_RATIOS, remark=amount),
        row(f"share of the noise on {nobody}", "{:.1%}", "padding_share", remark="no effect on the loss"),
        row("pass without gradients, train mode", "{:.3f}", "no_grad_ratio", remark="hits references: DPO, KTO, GRPO"),
        row("decoded token, train mode", "{:.3f}", "decoded_ratio", remark="hits GRPO, RLOO, sampling callbacks"),
        row("correlation between two ranks", "{:.2f}", "rank_correlation", remark="1: every device draws alike"),
        row("coordinates lost to rounding", "{:.1%}", "lost", remark=lost),
        row("rms after over before rounding", "{:.3f}", "rounded_ratio", remark=wide),
        row("signal-to-noise ratio", "{:.1f} dB", "snr_db", remark=wide),
    ]


_RATIOS = ("ratio_min", "ratio_median", "ratio_max")


def show(report: DoctorReport) -> None:
    """Print table and advice."""
    layout = report.layout
    model = report.model if report.real_model else f"a shrunk {report.model}"
    packing = f", packing {layout.packing}" if layout.packing else ""
    documents = "" if layout.packing == "wrapped" else f"{layout.documents} documents in "
    about = (
        f"{layout.batches} batches on {model}; the first: {documents}{layout.rows} x {layout.width} "
        f"tokens{packing}; {layout.dtype}.\n"
        "Noise is given as its rms over the paper's, alpha / sqrt(3 n D): "
        f"alpha {report.alpha:g}, n tokens in the document, width D."
    )
    print(*(textwrap.fill(printable(line), terminal_width()) for line in about.splitlines()), sep="\n", end="\n\n")
    show_table([("what", HOOK, report.noise["name"], "advice"), *rows(report)])
    print("", *(textwrap.fill(sentence, terminal_width()) for sentence in report.advice), sep="\n")
