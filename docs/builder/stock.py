"""What transformers' `neftune_noise_alpha` adds, compared with our noise: README's table as a chart, a packed row."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import torch
from markupsafe import Markup

from neft_zoo import registry
from neft_zoo.compare.plots import FAINT, FIRST, SECOND, new, style, svg
from neft_zoo.config import recipe
from neft_zoo.noise.batch import Batch
from neft_zoo.training.hf_internals import with_stock_noise

from .tables import macros
from .traces import documents, model

README = Path(__file__).parents[2] / "README.md"
HEAD = re.compile(r"^\| what +\| neftune_noise_alpha +\| neft-zoo \| paper \|$", re.MULTILINE)
ENDS = (0.0, 1.25)  # of the axis, in units of the paper's noise
RATIO = "rms ratio"  # rows in the unit of the axis
ALPHA, PACKED = 5.0, 63  # documents of a packed row


def measured_rows() -> list[list[str]]:
    """Return the rows of README's measured table: what, stock, ours, paper.

    Raises:
        ValueError: if README has no such table.
    """
    found = HEAD.search(text := README.read_text(encoding="utf-8"))
    if found is None:
        raise ValueError(f"{README} must hold the table of make compare-hook.")
    lines = text[found.end() :].strip().partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def chart() -> Markup:
    """Return the table with a chart in each row whose numbers are shares of the paper's noise."""
    lines = []
    for what, stock, ours, paper in measured_rows():
        values = [_number(text) for text in (stock, ours, paper)]
        marks = []
        if RATIO in what and values[0] is not None and values[1] is not None:
            marks = [_mark(values[0], "worse"), _mark(values[1], "better")]
        lines.append(
            {
                "what": what,
                "stock": stock,
                "ours": ours.lstrip("-") if _number(ours) == 0 else ours,
                "paper": paper,
                "marks": marks,
                "zero": _place(values[2] if values[2] is not None else 0.0),
                "says": f"stock {stock}, neft-zoo {ours}, paper {paper}",
            }
        )
    made: Markup = macros("stock.html.j2").table(lines)  # type: ignore[attr-defined]
    return made


def _number(text: str) -> float | None:
    match = re.fullmatch(r"(-?[\d.]+)( %)?", text)
    return None if match is None else float(match[1]) / (100 if match[2] else 1)


def _place(value: float) -> float:
    return round(100 * min(1.0, max(0.0, (value - ENDS[0]) / (ENDS[1] - ENDS[0]))), 2)


def _mark(value: float, kind: str) -> dict[str, object]:
    out = "above" if value > ENDS[1] else ""
    return {"point": "end", "kind": kind, "at": _place(value), "left": None, "width": None, "out": out}


def packed_noise() -> list[tuple[int, float, float]]:
    """Return length, and rms over the paper's of stock and of our noise, of the documents of one packed row."""
    _, tokenizer, _ = documents()
    with open(recipe.folder() / "quickstart/data/train.jsonl", encoding="utf-8") as file:
        records = [json.loads(line) for line, _ in zip(file, range(PACKED), strict=False)]
    encoded = [
        tokenizer(each["prompt"][0]["content"] + each["completion"][0]["content"])["input_ids"] for each in records
    ]
    inputs = {
        "input_ids": torch.tensor([[token for each in encoded for token in each]]),
        "position_ids": torch.tensor([[place for each in encoded for place in range(len(each))]]),
    }
    embeds = model().get_input_embeddings()(inputs["input_ids"]).detach()
    torch.manual_seed(0)
    stock = with_stock_noise(embeds.clone(), ALPHA) - embeds
    noise = registry.make("neft_uniform", alpha=ALPHA).noise
    ours = noise(embeds, Batch.from_inputs(inputs, key=1))  # type: ignore[operator, misc]
    rows, start = [], 0
    for each in encoded:
        nominal = ALPHA / math.sqrt(3 * len(each) * embeds.shape[-1])
        part = slice(start, start + len(each))
        rows.append((len(each), *(_rms(delta[0, part]) / nominal for delta in (stock, ours))))
        start += len(each)
    return sorted(rows)


def _rms(values: torch.Tensor) -> float:
    return float(values.square().mean().sqrt())


def packed_documents() -> str:
    """Return the picture of a packed row: how much of the paper's noise every document gets."""
    rows = packed_noise()
    lengths, stock, ours = zip(*rows, strict=True)
    with style():
        figure, axes = new(6.4, 3.0)
        axes.axhline(1, color=FAINT, linewidth=1)
        axes.plot(lengths, ours, ".", color=FIRST, label="neft_uniform", markersize=6)
        axes.plot(lengths, stock, "x", color=SECOND, label="neftune_noise_alpha", markersize=5)
        axes.set_xlabel("tokens of the document")
        axes.set_ylabel("noise over the paper's")
        axes.set_ylim(0, 1.2)
        figure.legend(loc="outside upper left", fontsize=10, ncols=2)
        middle = [sorted(each)[len(each) // 2] for each in (stock, ours)]
        said = f"the median document gets {middle[0]:.2f} of the paper's noise from the hook, {middle[1]:.2f} from "
        said += "neft_uniform"
        picture = svg(figure, f"{PACKED} documents in one packed row of {sum(lengths):,} tokens: {said}")
    return f"{picture}\n\n{PACKED} documents in one packed row of {sum(lengths):,} tokens, alpha {ALPHA:g}: {said}."
