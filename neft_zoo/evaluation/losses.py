"""Losses per graded token and per record, perplexity and calibration, with the noise off unless it is asked for."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from neft_zoo.evaluation.subject import Row, Subject
from neft_zoo.noise.additive import Noise, TokenEdit
from neft_zoo.noise.batch import IGNORED, step_key
from neft_zoo.passes.anatomy import base_model, find_backbone, find_decoder
from neft_zoo.passes.chunked_logits import POSITIONS_AT_A_TIME
from neft_zoo.passes.lm_head import LanguageHead
from neft_zoo.registry.strategy import Strategy
from neft_zoo.training.session import NoiseSession

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, eq=False)
class Scores:
    """What a model says of the graded tokens of one record, in their order.

    Attributes:
        log_probs: log-probability of the token that is there, in nats.
        confidence: probability of the likeliest token, in (0, 1].
        correct: whether the likeliest token is the one that is there.
    """

    log_probs: Float[np.ndarray, " n"]
    confidence: Float[np.ndarray, " n"]
    correct: Bool[np.ndarray, " n"]


@torch.no_grad()
def score(
    subject: Subject, rows: Sequence[Row], noise: Noise | TokenEdit | None = None, seed: int = 0, what: str = "losses"
) -> list[Scores]:
    """Return the scores of every row, in their order.

    Args:
        subject: the model and how its batches are made.
        rows: tokenized records.
        noise: added to the embeddings, or edits the token ids; None is the clean model.
        seed: of the noise.
        what: caption of the progress bar.
    """
    found: dict[int, Scores] = {}
    session = noise_session(subject, noise)
    try:
        total = math.ceil(len(rows) / subject.batch_size)
        shown = tqdm(subject.batches(rows), desc=what, total=total, disable=None if subject.progress else True)
        for chosen, inputs in shown:
            with subject.autocast(), session.noisy_pass(inputs, step_key(seed, 0, 0)) as noisy:
                hidden = last_hidden(subject.model, noisy)
            found |= dict(zip(chosen, _scores(subject, hidden, inputs["labels"]), strict=True))
    finally:
        session.detach()
    return [found[i] for i in range(len(rows))]


def noise_session(subject: Subject, noise: Noise | TokenEdit | None) -> NoiseSession:
    """Return a session that adds a noise to a subject's passes, which carry no gradients."""
    strategy = Strategy(noise)
    return NoiseSession(subject.model, strategy, tokenizer=subject.tokenizer, reference=())


def last_hidden(model: Any, inputs: Mapping[str, Any]) -> Float[Tensor, "B L D"]:
    """Run the model for its last hidden state, with logits of one position where it can leave out the others."""
    rest = {name: value for name, value in inputs.items() if name != "labels"}
    if "logits_to_keep" in inspect.signature(type(base_model(model)).forward).parameters:
        rest["logits_to_keep"] = 1
    outputs: list[Any] = []
    modules = {find_backbone(model), find_decoder(model)} - {None}  # a head may call the decoder alone (OPT)
    watches = [module.register_forward_hook(lambda *call: outputs.append(call[2])) for module in modules]
    try:
        model(**rest, use_cache=False)
    finally:
        for watch in watches:
            watch.remove()
    hidden = outputs[-1][0] if isinstance(outputs[-1], tuple) else outputs[-1].last_hidden_state
    return hidden[:, -inputs["input_ids"].shape[1] :]  # prompt tuning puts virtual tokens in front


def graded_logits(
    model: Any, hidden: Float[Tensor, "B L D"], labels: Int[Tensor, "B L"]
) -> Iterator[tuple[Float[Tensor, "N V"], Int[Tensor, " N"]]]:
    """Yield the logits of graded tokens in float32, and the tokens, a chunk at a time: all would take much memory."""
    head, graded = LanguageHead(model), labels[:, 1:] != IGNORED
    states, targets = (each[graded].split(POSITIONS_AT_A_TIME) for each in (hidden[:, :-1], labels[:, 1:]))
    for chunk, wanted in zip(states, targets, strict=True):
        yield head(chunk), wanted


def _scores(subject: Subject, hidden: Tensor, labels: Tensor) -> list[Scores]:
    parts = []
    with subject.autocast():
        for logits, targets in graded_logits(subject.model, hidden, labels):
            rows = logits.log_softmax(-1)
            best = rows.max(-1)
            chosen = rows.gather(-1, targets[:, None])[:, 0]
            parts.append(torch.stack([chosen, best.values.exp(), (best.indices == targets).float()]))
    flat = torch.cat(parts, 1).double().cpu().numpy()
    split = np.split(flat, (labels[:, 1:] != IGNORED).sum(1).cumsum(0)[:-1].tolist(), axis=1)
    return [Scores(part[0], part[1], part[2] > 0) for part in split]


def summary(scores: Sequence[Scores], bins: int = 15) -> dict[str, Any]:
    """Return the losses of a split.

    Args:
        scores: of its records.
        bins: bins of the calibration error.

    Returns:
        `loss` (nats per graded token, every token alike), `perplexity` (its exponential; None beyond a float),
        `accuracy` of the likeliest token, `calibration_error` in [0, 1], `record_losses` (mean over each record's
        tokens), and how many `records` and `tokens` these are.
    """
    log_probs, confidence, correct = (
        np.concatenate([getattr(each, name) for each in scores]) for name in ("log_probs", "confidence", "correct")
    )
    loss = float(-log_probs.mean())
    return {
        "loss": loss,
        "perplexity": math.exp(loss) if loss < 700 else None,
        "accuracy": float(correct.mean()),
        "calibration_error": calibration_error(confidence, correct, bins),
        "bins": bins,
        "records": len(scores),
        "tokens": len(log_probs),
        "record_losses": [float(-each.log_probs.mean()) for each in scores],
    }


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error: sum over bins of share * |accuracy - mean confidence|.

    Args:
        confidence: probability of the likeliest token (N,), in (0, 1].
        correct: whether it was right (N,).
        bins: bins of equal width over (0, 1], closed on the right.
    """
    place = np.clip(np.ceil(np.asarray(confidence) * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, weights=np.asarray(correct, dtype=float) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(place))
