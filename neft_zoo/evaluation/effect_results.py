"""Typed results of side effects of fine-tuning: forgetting, quantization, changed prompts, safety, instructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from neft_zoo.evaluation.serialization import Serializable


@dataclass(frozen=True)
class LossChange(Serializable):
    """Loss on records that were not trained on, against the model before fine-tuning.

    Attributes:
        loss: nats per graded token.
        before: loss of the model before fine-tuning; None where that is not at hand.
        change: loss less before.
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
    """Losses on passages of textbooks, all tokens graded, and on answers of GSM8K."""

    general: LossChange
    gsm8k: LossChange


@dataclass(frozen=True)
class LossUnder(Serializable):
    """Loss under a change of weights or prompts, in nats per graded token, and its difference to the clean loss."""

    loss: float
    change: float


@dataclass(frozen=True)
class Quantization(Serializable):
    """Test loss with rounded weights of the linear layers.

    Attributes:
        clean_loss: test loss with the weights as they are, in nats per graded token.
        group: consecutive weights that share a scale and a minimum.
        layers: number of rounded layers.
        rtn4: rounded to the nearest of 16 evenly spaced values per group.
        rtn3: rounded to the nearest of 8.
        nf4: rounded to bitsandbytes' NF4; None where that is not installed.
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
        change: loss less the loss after the prompts as they are.
        changed: share of prompts that the change altered.
    """

    loss: float
    change: float
    changed: float


@dataclass(frozen=True)
class PromptRobustness(Serializable):
    """Loss of test references when the prompt alone is changed; a change that altered no prompt is None.

    Attributes:
        clean_loss: loss after the prompts as they are, in nats per token of the references.
        records: test records with a prompt and a reference.
        typing_errors: letters swapped, doubled, left out or replaced by a neighbour on the keyboard.
        no_stop_words: English stop words dropped.
        shuffled_words: words in random order.
    """

    clean_loss: float
    records: int
    typing_errors: ChangedPrompts | None
    no_stop_words: ChangedPrompts | None
    shuffled_words: ChangedPrompts | None


@dataclass(frozen=True)
class Refusals(Serializable):
    """Refusals of prompts of one label.

    Attributes:
        prompts: number of prompts.
        refusal_probability: mean over prompts of P(refusal opening) / (P(refusal opening) + P(answering opening));
            None where too few answers have one of these openings.
        refusal_probability_interval: 95 % interval over prompts; None likewise.
        covered: mean probability that the answer has one of these openings.
        refused: share of greedy answers that a pattern of refusals matches in their first tokens.
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
    """Refusals of XSTest's safe prompts, which should be answered, and of its unsafe ones, which should not."""

    safe: Refusals
    unsafe: Refusals


@dataclass(frozen=True)
class Rate(Serializable):
    """A share in [0, 1] and its 95 % interval."""

    rate: float
    interval: Sequence[float]


@dataclass(frozen=True)
class InstructionFollowing(Serializable):
    """IFEval's accuracies, by the checkers of lm-evaluation-harness.

    Attributes:
        prompts: number of prompts that were answered.
        instructions: number of their instructions.
        subset: how the prompts were chosen.
        skipped: instructions of the benchmark whose prompts cannot be checked here, and their number of prompts.
        max_new_tokens: longest answer.
        unended: share of answers that were cut there.
        prompt_strict: share of prompts with every instruction followed.
        prompt_loose: the same, where markup and the first or last line may be left out.
        instruction_strict: share of instructions that were followed; the interval allows for their sharing prompts.
        instruction_loose: the same, loosely.
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
