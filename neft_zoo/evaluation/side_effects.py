"""The side effects of fine-tuning that an evaluation's options request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from neft_zoo.evaluation.forgetting import check_same_ids, forgetting, unrelated_rows
from neft_zoo.evaluation.instruction_following import instruction_following, load_benchmark
from neft_zoo.evaluation.prompt_changes import prompt_robustness
from neft_zoo.evaluation.quantization import linear_layers, quantization
from neft_zoo.evaluation.records import Record
from neft_zoo.evaluation.results import EvaluationReport
from neft_zoo.evaluation.safety import safety

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from neft_zoo.evaluation.subject import Subject


def side_effects(
    report: EvaluationReport,
    subject: Subject,
    test: Sequence[Record],
    load_before: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase | None]] | None = None,
) -> EvaluationReport:
    """Return the report with the side effects requested by its options.

    Args:
        report: of the model; its options are used.
        subject: the model.
        test: test records, before conversion to one of TRL's formats.
        load_before: returns the model before fine-tuning, and its tokenizer if known; None if unavailable or if it is
            the base of an adapter.

    Raises:
        NoiseError: if a library is missing, a model cannot be loaded or has another tokenizer, or weights are already
            quantized.
    """
    options = report.options
    if "quantization" in options.parts:
        linear_layers(subject.model)  # raises early for quantized weights
    benchmark = load_benchmark() if "instructions" in options.parts else None
    if "forgetting" in options.parts:
        rows = unrelated_rows(subject, options.unrelated_records)
        before, tokenizer = (None, None) if load_before is None else load_before()
        if tokenizer is not None:
            check_same_ids(subject, rows, tokenizer)
        report = replace(report, forgetting=forgetting(subject, rows, before))
    if "quantization" in options.parts:
        report = replace(report, quantization=quantization(subject, subject.rows["test"]))
    if "prompts" in options.parts:
        report = replace(report, prompts=prompt_robustness(subject, test, options.seed))
    if "safety" in options.parts:
        report = replace(report, safety=safety(subject, options.safety_prompts))
    if benchmark is not None:
        limit, longest = options.instruction_prompts, options.instruction_tokens
        report = replace(report, instructions=instruction_following(subject, benchmark, limit, longest))
    return report
