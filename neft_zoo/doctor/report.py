"""Doctor's report: table, advice and JSON."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from neft_zoo.doctor.measurements import HOOK, OURS, SIDES

FAINT = 30  # dB between embeddings and noise, above which noise does little


Report = dict[str, Any]


def rows(report: Report) -> list[tuple[str, str, str, str]]:
    """Return the rows of the table: what, both sides, advice."""

    def row(what: str, form: str, *keys: str, say: str = "") -> tuple[str, str, str, str]:
        cells = []
        for name in SIDES:
            values = [report["measured"][name][key] for key in keys]
            cells.append("-" if None in values else " / ".join(form.format(value) for value in values))
        return what, cells[0], cells[1], say

    hook = report["measured"][HOOK]
    wide = f"at the model's {report['weights']}" if report["weights"] == "real weights" else "random weights: a guess"
    amount = "as in the paper" if 0.95 < hook["ratio_min"] else f"the hook counts {_counted(report)}"
    amount = "by row: wrapped keeps no borders" if report["packing"] == "wrapped" else amount
    nobody = "padding and images" if report["images"] else "padding"
    lost = "float32 loses nothing" if report["dtype"] == "float32" else f"{report['dtype']}, {wide}"
    return [
        row("noise per document (min / median / max)", "{:.3f}", "ratio_min", "ratio_median", "ratio_max", say=amount),
        row(f"share of the noise on {nobody}", "{:.1%}", "padding_share", say="no effect on the loss"),
        row("pass without gradients, train mode", "{:.3f}", "no_grad_ratio", say="hits references: DPO, KTO, GRPO"),
        row("decoded token, train mode", "{:.3f}", "decoded_ratio", say="hits GRPO, RLOO, sampling callbacks"),
        row("correlation between two ranks", "{:.2f}", "rank_correlation", say="1: every device draws alike"),
        row("coordinates lost to rounding", "{:.1%}", "lost", say=lost),
        row("rms after over before rounding", "{:.3f}", "rounded_ratio"),
        row("signal-to-noise ratio", "{:.1f} dB", "snr_db", say=wide),
    ]


def advice(report: Report) -> list[str]:
    """Return one to three sentences."""
    hook, ours = report["measured"][HOOK], report["measured"][OURS]
    found = []
    if report["packing"] == "wrapped":
        found.append("packing_strategy wrapped keeps no borders of documents, so a row counts as one: choose bfd.")
    elif hook["ratio_min"] > 0.95:
        found.append(
            "Documents here have neither padding nor neighbours in their row: the hook adds the paper's noise."
        )
    else:
        found.append(
            f"The hook scales by {_counted(report)}, so a document gets {hook['ratio_median']:.2f} of the paper's "
            f"noise here, and another share in another batch; neft_uniform counts the document's own tokens."
        )
    snr = ours["snr_db"]
    if snr is not None and snr > FAINT and report["noise"]["name"] != "token_relative":
        found.append(
            f"Embeddings are {snr:.0f} dB above the noise, as in models that scale them (Gemma) or on long documents: "
            "token_relative sets the noise in proportion to them."
        )
    if hook["lost"] is not None and hook["lost"] > 0.05:
        found.append(
            f"Rounding to {report['dtype']} leaves {hook['lost']:.0%} of the hook's coordinates as they were; "
            "float32 weights under autocast lose none."
        )
    if len(found) < 3:
        found.append("Sampling or scoring in train mode meets the hook's noise, and never this package's.")
    return found


def show(report: Report) -> None:
    """Print table and advice, as plain aligned text where rich is not installed."""
    model = report["model"] if report["real_model"] else f"a shrunk {report['model']}"
    packing = f", packing {report['packing']}" if report["packing"] else ""
    counted = "" if report["packing"] == "wrapped" else f"{report['documents']} documents in "
    about = (
        f"{report['batches']} batches on {model}; the first: {counted}{report['rows']} x {report['width']} "
        f"tokens{packing}; {report['dtype']}.\n"
        "Noise is given as its rms over the paper's, alpha / sqrt(3 n D): "
        f"alpha {report['alpha']:g}, n tokens in the document, width D."
    )
    print(about, end="\n\n")
    table = [("what", HOOK, report["noise"]["name"], "advice"), *rows(report)]
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for line in table:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    else:
        drawn = Table(*table[0])
        for line in table[1:]:
            drawn.add_row(*line)
        Console().print(drawn)
    print("", *report["advice"], sep="\n")


def write(path: Path, report: Report) -> None:
    """Write the numbers, whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.absolute().parent, delete=False, encoding="utf-8") as file:
        try:
            json.dump(report, file, indent=2, allow_nan=False)
            file.write("\n")
        except BaseException:
            os.unlink(file.name)
            raise
    os.replace(file.name, path)


def _counted(report: Report) -> str:
    """Return what the hook takes for the length of a document."""
    if report["documents"] > report["rows"]:
        return f"a row of {report['documents']} documents"
    if report["images"]:
        return "images and padding as text"
    return "padding as text" if report["real_tokens"] < 1 else "the whole row"
