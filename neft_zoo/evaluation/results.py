"""Typed results of an evaluation; their fields are the keys of `evaluation.json`, and None is null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from neft_zoo.evaluation.answer_results import AnswerText, Memorization, Score
from neft_zoo.evaluation.effect_results import Forgetting, InstructionFollowing, PromptRobustness, Quantization, Safety
from neft_zoo.evaluation.options import Options
from neft_zoo.evaluation.serialization import Serializable


@dataclass(frozen=True)
class LossSummary(Serializable):
    """Losses of a split.

    Attributes:
        loss: nats per graded token, with equal weight for every token.
        perplexity: exponential of the loss; None if it exceeds a float.
        accuracy: share of graded tokens that are the model's most likely ones.
        calibration_error: expected calibration error of the most likely token, in [0, 1].
        bins: number of bins for it.
        records: number of records.
        tokens: number of graded tokens.
        record_losses: mean over each record's graded tokens, in nats.
    """

    loss: float
    perplexity: float | None
    accuracy: float
    calibration_error: float
    bins: int
    records: int
    tokens: int
    record_losses: Sequence[float]


@dataclass(frozen=True)
class SplitLosses(Serializable):
    """Losses of both splits under one set of weights."""

    train: LossSummary
    test: LossSummary


@dataclass(frozen=True)
class BestLosses(Serializable):
    """Losses at a run's best checkpoint.

    Attributes:
        checkpoint: its folder.
        step: optimizer step.
        logged_loss: held-out loss in the trainer's log at this step.
        train: losses of the training records.
        test: losses of the test records.
    """

    checkpoint: str
    step: int
    logged_loss: float
    train: LossSummary
    test: LossSummary


@dataclass(frozen=True)
class Losses(Serializable):
    """Losses at the end of a run, and at its best checkpoint (None unless the run kept several)."""

    end: SplitLosses
    best: BestLosses | None = None


@dataclass(frozen=True)
class Flips(Serializable):
    """How often noise moves an embedding closer to another row of the table than to its own.

    Attributes:
        flipped: share of positions.
        flipped_tokens: share of the distinct tokens that flip at any position.
    """

    flipped: float
    flipped_tokens: float


@dataclass(frozen=True)
class ReplacementPoint(Serializable):
    """Loss in nats per graded token with a share `rate` of the input tokens replaced."""

    rate: float
    loss: float


@dataclass(frozen=True)
class NoisePoint(Serializable):
    """Loss in nats per graded token, and flips, under noise of strength `alpha`."""

    alpha: float
    loss: float
    flipped: float
    flipped_tokens: float


@dataclass(frozen=True)
class Curves(Serializable):
    """Robustness curves, empty if no rates or alphas were requested."""

    replaced_tokens: Sequence[ReplacementPoint] = ()
    noise: Sequence[NoisePoint] = ()

    def to_dict(self) -> dict[str, object]:
        """Return the curves that have points."""
        return {name: points for name, points in super().to_dict().items() if points}


@dataclass(frozen=True)
class Robustness(Serializable):
    """Test loss, in nats per graded token, and answers after changes of input or prompt.

    Attributes:
        curves: losses over replaced tokens and over noise.
        noise: strategy of the noise curve.
        flips_from: lowest alpha of that curve at which any position flips; None if none does.
        templates: loss under each changed prompt.
        lengths: plain answers, answers asked to be longer, and answers with the end blocked; empty if no record has a
            prompt.
    """

    curves: Curves
    noise: str
    flips_from: float | None
    templates: Mapping[str, float]
    lengths: Mapping[str, AnswerText]


@dataclass(frozen=True)
class EvaluationReport(Serializable):
    """All measures of a model with the noise off; None for measures that were not requested.

    Attributes:
        model: folder or name.
        noise: the noise that it was trained with, from its `noise.json`.
        neft_zoo: version of this package.
        options: settings of the evaluation.
        losses: losses of both splits.
        memorization: overlap and extraction by split.
        text: length, repetition and diversity of the answers by split.
        robustness: losses and answers after changes of input or prompt.
        scores: results of scorers by name.
        tasks: metrics of lm-evaluation-harness by task.
        forgetting: losses on text and answers that were not trained on.
        quantization: test loss with rounded weights.
        prompts: test loss after changed prompts.
        safety: refusals of safe and unsafe prompts.
        instructions: accuracies of IFEval.
    """

    model: str
    noise: Mapping[str, object] | None
    neft_zoo: str
    options: Options
    losses: Losses | None = None
    memorization: Mapping[str, Memorization] | None = None
    text: Mapping[str, AnswerText] | None = None
    robustness: Robustness | None = None
    scores: Mapping[str, Score] | None = None
    tasks: Mapping[str, Mapping[str, float]] | None = None
    forgetting: Forgetting | None = None
    quantization: Quantization | None = None
    prompts: PromptRobustness | None = None
    safety: Safety | None = None
    instructions: InstructionFollowing | None = None
