"""Settings of an evaluation: measures, sample sizes and constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from neft_zoo.errors import NoiseError, did_you_mean, shown
from neft_zoo.evaluation.serialization import Serializable
from neft_zoo.noise.schedules import check_count, check_number

PARTS = ("losses", "memorization", "text", "robustness")
# Side effects of fine-tuning, which take further data, a second model or many passes: measured where asked for.
SIDE_EFFECTS = ("forgetting", "quantization", "prompts", "safety", "instructions")
PLACE = "{prompt}"
WORDS = 50


@dataclass(frozen=True)
class Options(Serializable):
    """The settings of an evaluation.

    Args:
        parts: which of `losses`, `memorization`, `text` and `robustness`, and of the side effects `forgetting`,
            `quantization`, `prompts`, `safety` and `instructions`, which are not measured by default.
        records: records of each split that losses are measured on, from the start of the split; None for all.
        answers: records of each split that answers are generated for, from the start of those; None for all.
        max_new_tokens: longest answer, in tokens.
        repetition_penalty: above 1, tokens that have occurred become less likely in answers.
        words: word count at which repetition and diversity are measured; None means 50. They are missing where every
            answer is shorter.
        clip: log-diversity of an answer that repeats nothing, which would be infinite.
        bins: bins of equal width that the calibration error is summed over.
        rates: shares of tokens that are replaced at random.
        noise: strategy of the noise curve; it must have an argument `alpha`.
        alphas: sizes of the noise curve.
        templates: name and wrapper of changed prompts; `{prompt}` stands for the prompt.
        longer: sentence that asks for a longer answer, put after the prompt.
        min_new_tokens: where the end is blocked, the shortest answer in tokens.
        seed: of replaced tokens, noise and changed prompts.
        unrelated_records: passages, and problems of GSM8K, that forgetting is measured on; None for all.
        safety_prompts: prompts of XSTest; None for all.
        instruction_prompts: prompts of IFEval; None for all.
        instruction_tokens: longest answer to one of IFEval's, in tokens.

    Raises:
        NoiseError: if a value is not accepted.
    """

    parts: tuple[str, ...] = PARTS
    records: int | None = 512
    answers: int | None = 128
    max_new_tokens: int = 128
    repetition_penalty: float = 1.0
    words: int | None = None
    clip: float = 20.0
    bins: int = 15
    rates: tuple[float, ...] = (0.0, 0.02, 0.05, 0.1, 0.2)
    noise: str = "neft_uniform"
    alphas: tuple[float, ...] = (0.0, 5.0, 10.0, 15.0, 25.0, 50.0)
    templates: Mapping[str, str] = field(default_factory=lambda: {"headed": "### Instruction:\n{prompt}"})
    longer: str = "Give a long and comprehensive answer."
    min_new_tokens: int = 64
    seed: int = 0
    unrelated_records: int | None = 128
    safety_prompts: int | None = None
    instruction_prompts: int | None = 100
    instruction_tokens: int = 512

    def __post_init__(self) -> None:
        for part in self.parts:
            if part not in (*PARTS, *SIDE_EFFECTS):
                near = did_you_mean(part, (*PARTS, *SIDE_EFFECTS))
                raise NoiseError(f"parts must be among {', '.join((*PARTS, *SIDE_EFFECTS))}, got {part!r}{near}")
        limits = ("records", "answers", "words", "unrelated_records", "safety_prompts", "instruction_prompts")
        for name in limits:
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), 1)
        for name in ("max_new_tokens", "min_new_tokens", "bins", "instruction_tokens"):
            check_count(name, getattr(self, name), 1)
        check_number("repetition_penalty", self.repetition_penalty, 1e-6)
        check_number("clip", self.clip)
        for rate in self.rates:
            check_number("rates", rate, 0, 1)
        for alpha in self.alphas:
            check_number("alphas", alpha)
        if self.words is not None and self.words > self.max_new_tokens:
            raise NoiseError(f"words must be at most max_new_tokens, {self.max_new_tokens}, got {self.words}.")
        for name, template in self.templates.items():
            if PLACE not in template:
                raise NoiseError(f"template {name!r} must hold {PLACE}, got {template!r}.")


def read_options(values: Mapping[str, object]) -> Options:
    """Return options from plain values, as a YAML mapping has them.

    Raises:
        NoiseError: if a key or a value is not accepted.
    """
    accepted = [option.name for option in fields(Options)]
    for key, value in values.items():
        if key not in accepted:
            near = did_you_mean(str(key), accepted)
            raise NoiseError(f"options of an evaluation must be among {', '.join(accepted)}, got {shown(key)}{near}")
        if isinstance(value, list) != isinstance(getattr(Options(), key), tuple):
            raise NoiseError(f"{key} must be a value like {shown(getattr(Options(), key))}, got {shown(value)}.")
    return Options.from_dict(values)
