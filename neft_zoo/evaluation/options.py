"""Settings of an evaluation: measures, sample sizes and constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from neft_zoo.errors import NoiseError, did_you_mean, shown
from neft_zoo.evaluation.serialization import Serializable
from neft_zoo.noise.schedules import check_count, check_number

PARTS = ("losses", "memorization", "text", "robustness")
# Side effects of fine-tuning need more data, a second model or many passes, so they are measured only on request.
SIDE_EFFECTS = ("forgetting", "quantization", "prompts", "safety", "instructions")
PLACE = "{prompt}"
WORDS = 50


@dataclass(frozen=True)
class Options(Serializable):
    """The settings of an evaluation.

    Args:
        parts: which measures to compute: `losses`, `memorization`, `text` and `robustness` by default, and on request
            the side effects `forgetting`, `quantization`, `prompts`, `safety` and `instructions`.
        records: number of records in each split to measure losses on, from its start; None for all.
        answers: number of those records, from their start, to generate answers for; None for all.
        max_new_tokens: maximum length of an answer, in tokens.
        repetition_penalty: if above 1, makes tokens that have occurred less likely in answers.
        words: number of words at which repetition and diversity are measured; None means 50. Both are missing if every
            answer is shorter.
        clip: log-diversity of an answer without repetition, which would otherwise be infinite.
        bins: number of bins of equal width for the calibration error.
        rates: shares of tokens to replace at random.
        noise: strategy of the noise curve; it must have an argument `alpha`.
        alphas: values of alpha in the noise curve.
        templates: names and templates of changed prompts; `{prompt}` stands for the prompt.
        longer: sentence that asks for a longer answer, appended to the prompt.
        min_new_tokens: minimum length of an answer, in tokens, in the control with the end blocked.
        seed: of replaced tokens, noise and changed prompts.
        unrelated_records: number of passages, and of GSM8K problems, to measure forgetting on; None for all.
        safety_prompts: number of XSTest prompts; None for all.
        instruction_prompts: number of IFEval prompts; None for all.
        instruction_tokens: maximum length of an answer to an IFEval prompt, in tokens.

    Raises:
        NoiseError: if a value is invalid.
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
    """Return options from plain values, such as a YAML mapping.

    Raises:
        NoiseError: if a key or a value is invalid.
    """
    accepted = [option.name for option in fields(Options)]
    for key, value in values.items():
        if key not in accepted:
            near = did_you_mean(str(key), accepted)
            raise NoiseError(f"options of an evaluation must be among {', '.join(accepted)}, got {shown(key)}{near}")
        if isinstance(value, list) != isinstance(getattr(Options(), key), tuple):
            raise NoiseError(f"{key} must be a value like {shown(getattr(Options(), key))}, got {shown(value)}.")
    return Options.from_dict(values)
