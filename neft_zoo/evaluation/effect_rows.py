"""Table rows of side effects for a report, and named numbers of them for a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from neft_zoo.evaluation.effect_results import ChangedPrompts, LossChange, LossUnder, Rate
from neft_zoo.evaluation.results import EvaluationReport

# Distinct from the names of record sets in a comparison.
FORGETTING = {"general": "general_text_loss", "gsm8k": "gsm8k_answers_loss"}


def effect_rows(report: EvaluationReport) -> Iterator[tuple[str, str]]:
    """Yield label and text of every measured side effect."""
    if report.forgetting is not None:
        yield "loss, general text (less before)", _change(report.forgetting.general)
        yield "loss, GSM8K answers (less before)", _change(report.forgetting.gsm8k)
    if report.quantization is not None:
        yield "loss, 4-bit weights (less clean)", _change(report.quantization.rtn4)
        yield "loss, 3-bit weights (less clean)", _change(report.quantization.rtn3)
        yield "loss, NF4 weights (less clean)", _change(report.quantization.nf4)
    if report.prompts is not None:
        yield "loss, typing errors (less clean)", _change(report.prompts.typing_errors)
        yield "loss, no stop words (less clean)", _change(report.prompts.no_stop_words)
        yield "loss, shuffled words (less clean)", _change(report.prompts.shuffled_words)
    if report.safety is not None:
        for label, refusals in vars(report.safety).items():
            of = f"of {refusals.prompts} {label} prompts"
            yield f"refused {of}", share_text(refusals.refused, refusals.refused_interval)
            share = share_text(refusals.refusal_probability, refusals.refusal_probability_interval)
            yield f"P(refusal opening) {of}", share
            yield "probability of all openings", f"{refusals.covered:.3f}"
    if report.instructions is not None:
        yield "IFEval", report.instructions.subset
        yield "IFEval prompts, strict", _rate(report.instructions.prompt_strict)
        yield "IFEval prompts, loose", _rate(report.instructions.prompt_loose)
        yield "IFEval instructions, strict", _rate(report.instructions.instruction_strict)
        yield "IFEval instructions, loose", _rate(report.instructions.instruction_loose)


def effect_numbers(report: EvaluationReport) -> Iterator[tuple[str, float | None]]:
    """Yield name and value of every measured side effect, for a comparison."""
    for part in (report.forgetting, report.quantization, report.prompts):
        for name, value in vars(part).items() if part is not None else ():
            if isinstance(value, LossChange):
                yield FORGETTING[name], value.loss
            elif isinstance(value, LossUnder | ChangedPrompts):
                yield f"{name}_loss", value.loss
                yield f"{name}_change", value.change
    for label, refusals in vars(report.safety).items() if report.safety is not None else ():
        yield f"{label}_refused", refusals.refused
        yield f"{label}_refusal_probability", refusals.refusal_probability
    for name, rate in vars(report.instructions).items() if report.instructions is not None else ():
        if isinstance(rate, Rate):
            yield f"ifeval_{name}", rate.rate


def _change(found: LossChange | LossUnder | ChangedPrompts | None) -> str:
    if found is None:
        return "-"
    return f"{found.loss:.3f}" if found.change is None else f"{found.loss:.3f} ({found.change:+.3f})"


def _rate(found: Rate) -> str:
    return share_text(found.rate, found.interval)


def share_text(share: float | None, interval: Sequence[float] | None) -> str:
    """Return a share and its interval, or a dash if it was not measured."""
    if share is None or interval is None:
        return "-"
    return f"{share:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
