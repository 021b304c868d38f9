"""Measure what transformers' `neftune_noise_alpha` and this package do to the same model and data.

python tests/benchmarks/against_hook.py [--markdown]    # or: make compare-hook

Every row trains a real step with `trl.SFTTrainer(neftune_noise_alpha=5)` and one with `neft_zoo.SFTTrainer`, noise
neft_uniform of the same alpha, and compares what the first decoder layer read with what the embedding table holds.
"""

import argparse
from collections.abc import Callable
from functools import cache
from unittest import mock

import torch
from accelerate.state import AcceleratorState
from watched import (
    SIDES,
    AfterStep,
    Call,
    borders,
    calls_of,
    documents,
    gemma,
    llama,
    mean,
    mixed,
    nominal,
    ratios,
    ratios_of_64,
    rms,
    scratch,
    trainer,
)

from neft_zoo import NoiseError

LEGEND = """
rms ratio: rms of the noise over alpha / sqrt(3 n D), n the real tokens of the document, D the width
bf16 rows: a Gemma of width 2,048, all weights bf16, one document of 1,024 tokens
-: the paper does not say"""


@cache
def padded(side: str) -> Call:
    return calls_of(side, documents(16, 1024))[0]


def short_row(side: str) -> str:
    call = padded(side)
    return mean([ratio for ratio, (_, a, b) in zip(ratios(call), borders(call), strict=True) if b - a == 16])


def padding(side: str) -> str:
    call = padded(side)
    return f"{rms(call.added[call.inputs['attention_mask'] == 0]):.4f}"


def padding_free(side: str) -> str:
    return mean(ratios(calls_of(side, mixed(8), padding_free=True)[0]))


def packed(side: str) -> str:
    call = calls_of(side, mixed(64), packing=True, max_length=256, per_device_train_batch_size=8)[0]
    assert len(borders(call)) > 40, "the batch must hold many documents"
    return mean(ratios(call))


def without_gradients(side: str) -> str:
    """Score a sequence between two steps, as preference losses do with their reference."""

    def score(model):
        with torch.no_grad():
            model(input_ids=torch.arange(5, 69)[None])

    return mean(ratios_of_64(calls_of(side, mixed(8), callbacks=(AfterStep(score),))[-1:]))


def decoding(side: str) -> str:
    """Generate between two steps without a change of mode, as online trainers and logging callbacks do."""
    ids = torch.arange(5, 69)[None]

    def generate(model):
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, eos_token_id=None)

    calls = calls_of(side, mixed(8), callbacks=(AfterStep(generate),))
    return mean(ratios_of_64([call for call in calls if call.clean.shape[1] == 1]))


def ranks(side: str) -> str:
    """Train the same data as rank 0 and as rank 1: both sides read their rank from accelerate's state."""
    noises = []
    for rank in (0, 1):
        # A property, since the state is filled anew when a trainer is made.
        with mock.patch.object(AcceleratorState, "process_index", property(lambda _, rank=rank: rank), create=True):
            noises.append(calls_of(side, documents(32, 32, 32, 32))[0].added.flatten())
    return f"{torch.corrcoef(torch.stack(noises))[0, 1]:.2f}"


@cache
def rounded(side: str) -> torch.Tensor:
    """Return what was added to bf16 embeddings of rms 1."""
    return calls_of(side, documents(1024), gemma())[0].added


def unchanged(side: str) -> str:
    return f"{(rounded(side) == 0).float().mean() * 100:.0f} %"


def rounded_rms(side: str) -> str:
    return f"{rms(rounded(side)) / nominal(1024, 2048):.3f}"


def refuses(side: str) -> str:
    try:
        run = trainer(side, llama(), mixed(4), alpha=-1)
    except NoiseError:
        return "yes"
    try:
        run.train()
    except Exception as error:
        return f"no, {type(error).__name__} in step 1"
    return "no, it trains"


def left_behind(side: str) -> str:
    def fail(model):
        raise KeyboardInterrupt

    model = llama()
    try:
        trainer(side, model, mixed(4), callbacks=(AfterStep(fail),)).train()
    except KeyboardInterrupt:
        return str(len(model.get_input_embeddings()._forward_hooks))
    raise AssertionError("the callback must stop the run")


def resumed(side: str) -> str:
    saving = dict(output_dir=scratch(), save_strategy="steps", save_steps=1)
    trainer(side, llama(), mixed(4), **saving).train()
    try:
        trainer(side, llama(), mixed(4), alpha=15, max_steps=2, **saving).train(resume_from_checkpoint=True)
    except NoiseError:
        return "yes"
    return "no"


ROWS: list[tuple[str, Callable[[str], str], str]] = [
    ("rms ratio, 16 tokens padded to 1,024", short_row, "1"),
    ("rms ratio, 8 documents, padding-free", padding_free, "1"),
    ("rms ratio, a batch of 8 packed rows (bfd, 256 tokens)", packed, "1"),
    ("rms on padding", padding, "0"),
    ("rms ratio, pass without gradients in train mode", without_gradients, "0"),
    ("rms ratio, decoded token after 64, in train mode", decoding, "0"),
    ("correlation of the noise of two ranks", ranks, "-"),
    ("bf16: embedding coordinates left as they were", unchanged, "0 %"),
    ("bf16: rms ratio", rounded_rms, "1"),
    ("alpha = -1 refused before training", refuses, "-"),
    ("hooks left after an exception", left_behind, "-"),
    ("resume under another alpha noticed", resumed, "-"),
]


def show(rows: list[tuple[str, ...]], markdown: bool) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("| " + " | ".join(cells) + " |" if markdown else "  ".join(cells).rstrip())
        if markdown and number == 0:
            print("| " + " | ".join("-" * width for width in widths) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    markdown = parser.parse_args().markdown
    rows = [(what, *map(measure, SIDES), paper) for what, measure, paper in ROWS]
    show([("what", *SIDES, "paper"), *rows], markdown)
    print(LEGEND)


if __name__ == "__main__":
    main()
