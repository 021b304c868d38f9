"""Losses per graded token and per record, perplexity and calibration, by default with the noise off."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from neft_zoo.errors import NoiseError
from neft_zoo.evaluation.progress import progress_bar
from neft_zoo.evaluation.results import LossSummary
from neft_zoo.evaluation.subject import Row, Subject
from neft_zoo.noise.additive import Noise, TokenEdit
from neft_zoo.noise.batch import IGNORED, step_key
from neft_zoo.passes.anatomy import base_model
from neft_zoo.passes.chunked_logits import POSITIONS_AT_A_TIME
from neft_zoo.passes.layers import find_backbones, last_hidden_state
from neft_zoo.passes.lm_head import LanguageHead, check_numbers
from neft_zoo.passes.positions import check_positions
from neft_zoo.registry.strategy import Strategy
from neft_zoo.training.session import NoiseSession

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from transformers import PreTrainedModel


@dataclass(frozen=True, eq=False)
class Scores:
    """Predictions at the graded tokens of one record, in order.

    Attributes:
        log_probs: log-probability of the label, in nats.
        confidence: probability of the most likely token, in (0, 1].
        correct: whether the most likely token is the label.
    """

    log_probs: Float[np.ndarray, " n"]
    confidence: Float[np.ndarray, " n"]
    correct: Bool[np.ndarray, " n"]


@torch.no_grad()
def score(
    subject: Subject, rows: Sequence[Row], noise: Noise | TokenEdit | None = None, seed: int = 0, what: str = "losses"
) -> list[Scores]:
    """Return the scores of every row, in order.

    Args:
        subject: the model and its data preparation.
        rows: tokenized records.
        noise: noise on the embeddings, or a token edit; None for the clean model.
        seed: of the noise.
        what: label of the progress bar.

    Raises:
        NoiseError: if a row is longer than the model's positions, or its logits are nan.
    """
    longest = max((len(row.input_ids) for row in rows), default=0)
    check_positions(subject.model, longest, "a record", "set max_length")
    found: dict[int, Scores] = {}
    session = noise_session(subject, noise)
    try:
        total = math.ceil(len(rows) / subject.batch_size)
        for chosen, inputs in progress_bar(subject.batches(rows), what, total=total, shown=subject.progress):
            with subject.autocast(), session.noisy_pass(inputs, step_key(seed, 0, 0)) as noisy:
                hidden = last_hidden(subject.model, noisy)
            found |= dict(zip(chosen, _scores(subject, hidden, inputs["labels"]), strict=True))
    finally:
        session.detach()
    return [found[i] for i in range(len(rows))]


def noise_session(subject: Subject, noise: Noise | TokenEdit | None) -> NoiseSession:
    """Return a session that adds noise in a subject's passes, which have no gradients."""
    return NoiseSession(subject.model, Strategy(noise), tokenizer=subject.tokenizer, reference=())


def last_hidden(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> Float[Tensor, "B L D"]:
    """Return the last hidden state of one forward pass.

    Logits at all positions would take more memory than the rest of the pass, so the model computes those of the last
    position only, if its `forward` supports that.

    Raises:
        NoiseError: if the model's logits are nan, or not those that its LM head computes from this state.
    """
    arguments: dict[str, object] = {name: value for name, value in inputs.items() if name != "labels"}
    if "logits_to_keep" in inspect.signature(type(base_model(model)).forward).parameters:
        arguments["logits_to_keep"] = 1
    outputs: list[Any] = []  # of several backbones, the last one to finish
    hooks = [each.register_forward_hook(lambda *call: outputs.append(call[2])) for each in find_backbones(model)]
    try:
        logits = model(**arguments, use_cache=False).logits
    finally:
        for hook in hooks:
            hook.remove()
    hidden = last_hidden_state(outputs[-1])
    check_numbers(model, logits[:, -1])
    if not LanguageHead(model).makes(logits[:, -1], hidden[:, -1]):
        name = type(base_model(model)).__name__
        raise NoiseError(
            f"model must make its logits of its last hidden states by its LM head, got {name}, which does not."
        )
    return hidden[:, -inputs["input_ids"].shape[1] :]  # prompt tuning prepends virtual tokens


def graded_logits(
    model: PreTrainedModel, hidden: Float[Tensor, "B L D"], labels: Int[Tensor, "B L"]
) -> Iterator[tuple[Float[Tensor, "N V"], Int[Tensor, " N"]]]:
    """Yield float32 logits and labels of graded tokens in chunks, since all logits at once take much memory."""
    head, graded = LanguageHead(model), labels[:, 1:] != IGNORED
    states = hidden[:, :-1][graded].split(POSITIONS_AT_A_TIME)
    targets = labels[:, 1:][graded].split(POSITIONS_AT_A_TIME)
    for chunk, chunk_labels in zip(states, targets, strict=True):
        yield head(chunk), chunk_labels


def _scores(subject: Subject, hidden: Tensor, labels: Tensor) -> list[Scores]:
    chunks = []
    with subject.autocast():
        for logits, targets in graded_logits(subject.model, hidden, labels):
            log_probs = logits.log_softmax(-1)
            likeliest = log_probs.max(-1)
            target_log_probs = log_probs.gather(-1, targets[:, None])[:, 0]
            correct = likeliest.indices == targets
            chunks.append(torch.stack([target_log_probs, likeliest.values.exp(), correct.float()]))
    flat = torch.cat(chunks, 1).double().cpu().numpy()
    records = np.split(flat, (labels[:, 1:] != IGNORED).sum(1).cumsum(0)[:-1].tolist(), axis=1)
    return [Scores(record[0], record[1], record[2] > 0) for record in records]


def summary(scores: Sequence[Scores], bins: int = 15) -> LossSummary:
    """Return the losses of a split.

    Args:
        scores: of the split's records.
        bins: number of bins for the calibration error.
    """
    log_probs = np.concatenate([record.log_probs for record in scores])
    confidence = np.concatenate([record.confidence for record in scores])
    correct = np.concatenate([record.correct for record in scores])
    loss = float(-log_probs.mean())
    return LossSummary(
        loss=loss,
        perplexity=math.exp(loss) if loss < 700 else None,  # the largest float is about e^709
        accuracy=float(correct.mean()),
        calibration_error=calibration_error(confidence, correct, bins),
        bins=bins,
        records=len(scores),
        tokens=len(log_probs),
        record_losses=[float(-record.log_probs.mean()) for record in scores],
    )


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error: sum over bins of share * |accuracy - mean confidence|.

    Args:
        confidence: probability of the most likely token (N,), in (0, 1].
        correct: whether that token is right (N,).
        bins: number of bins of equal width over (0, 1], closed on the right.
    """
    bin_index = np.clip(np.ceil(np.asarray(confidence) * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(bin_index, weights=np.asarray(correct, dtype=float) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(bin_index))
