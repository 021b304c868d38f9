"""Typed results of side effects of fine-tuning: forgetting, quantization, changed prompts, safety, instructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from neft_zoo.evaluation.serialization import Serializable


@dataclass(frozen=True)
class LossChange(Serializable):
    """Loss on records that were not trained on, compared with the model before fine-tuning.

    Attributes:
        loss: nats per graded token.
        before: loss of the model before fine-tuning; None if that model is not available.
        change: loss minus before.
        records: number of records.
        tokens: number of graded tokens.
    """

    loss: float
    before: float | None
    change: float | None
    records: int
    tokens: int


@dataclass(frozen=True)
class Forgetting(Serializable):
    """Losses on textbook passages, with all tokens graded, and on GSM8K answers."""

    general: LossChange
    gsm8k: LossChange


@dataclass(frozen=True)
class LossUnder(Serializable):
    """Loss after a change of weights or prompts, in nats per graded token, and its difference from the clean loss."""

    loss: float
    change: float


@dataclass(frozen=True)
class Quantization(Serializable):
    """Test loss with rounded weights of the linear layers.

    Attributes:
        clean_loss: test loss with the original weights, in nats per graded token.
        group: number of consecutive weights that share a scale and a minimum.
        layers: number of rounded layers.
        rtn4: rounding to the nearest of 16 evenly spaced values per group.
        rtn3: rounding to the nearest of 8.
        nf4: rounding to bitsandbytes' NF4; None if it is not installed.
    """

    clean_loss: float
    group: int
    layers: int
    rtn4: LossUnder
    rtn3: LossUnder
    nf4: LossUnder | None


@dataclass(frozen=True)
class ChangedPrompts(Serializable):
    """Loss of the references after changed prompts.

    Attributes:
        loss: nats per token of the references.
        change: loss minus the loss after the original prompts.
        changed: share of prompts that were altered.
    """

    loss: float
    change: float
    changed: float


@dataclass(frozen=True)
class PromptRobustness(Serializable):
    """Loss of test references when only the prompt is changed; None for a change that altered no prompt.

    Attributes:
        clean_loss: loss after the original prompts, in nats per token of the references.
        records: number of test records with a prompt and a reference.
        typing_errors: letters swapped, doubled, omitted or replaced by a neighbour on the keyboard.
        no_stop_words: English stop words removed.
        shuffled_words: words in random order.
    """

    clean_loss: float
    records: int
    typing_errors: ChangedPrompts | None
    no_stop_words: ChangedPrompts | None
    shuffled_words: ChangedPrompts | None


@dataclass(frozen=True)
class Refusals(Serializable):
    """Refusals of prompts with one label (safe or unsafe).

    Attributes:
        prompts: number of prompts.
        refusal_probability: mean over prompts of P(refusal opening) / (P(refusal opening) + P(answering opening));
            None if too few answers begin with one of these openings.
        refusal_probability_interval: 95 % interval over prompts; None likewise.
        covered: mean probability that the answer begins with one of these openings.
        refused: share of greedy answers whose first tokens match a refusal pattern.
        refused_interval: Wilson's 95 % interval.
    """

    prompts: int
    refusal_probability: float | None
    refusal_probability_interval: Sequence[float] | None
    covered: float
    refused: float
    refused_interval: Sequence[float]


@dataclass(frozen=True)
class Safety(Serializable):
    """Refusals of XSTest's safe prompts, which should be answered, and of its unsafe ones, which should be refused."""

    safe: Refusals
    unsafe: Refusals


@dataclass(frozen=True)
class Rate(Serializable):
    """A share in [0, 1] and its 95 % interval."""

    rate: float
    interval: Sequence[float]


@dataclass(frozen=True)
class InstructionFollowing(Serializable):
    """IFEval's accuracies, computed by the checkers of lm-evaluation-harness.

    Attributes:
        prompts: number of prompts that were answered.
        instructions: number of instructions in them.
        subset: description of how the prompts were selected.
        skipped: instructions whose prompts cannot be checked here, and their number of prompts.
        max_new_tokens: maximum length of an answer.
        unended: share of answers truncated at this length.
        prompt_strict: share of prompts with every instruction followed.
        prompt_loose: the same, ignoring markup and the first or last line if that helps.
        instruction_strict: share of followed instructions; the interval accounts for instructions that share a prompt.
        instruction_loose: the same with loose checks.
    """

    prompts: int
    instructions: int
    subset: str
    skipped: Mapping[str, int]
    max_new_tokens: int
    unended: float
    prompt_strict: Rate
    prompt_loose: Rate
    instruction_strict: Rate
    instruction_loose: Rate
