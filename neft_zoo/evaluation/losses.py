"""Losses per graded token and per record, perplexity and calibration, with the noise off unless it is asked for."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from neft_zoo.batch import IGNORED, Batch, step_key
from neft_zoo.chunks import POSITIONS_AT_A_TIME
from neft_zoo.evaluation.subject import Row, Subject
from neft_zoo.head import LanguageHead
from neft_zoo.noise import AtLayers, Noise, TokenEdit
from neft_zoo.parts import base_model, find_backbone
from neft_zoo.tap import Tap
from neft_zoo.vocabulary import known_tokens

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


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
    layers = noise.layers if isinstance(noise, AtLayers) else False
    tap = Tap(subject.model, layers=layers, reference=[]) if noise is not None else None
    last, watch = [], find_backbone(subject.model).register_forward_hook(lambda *call: last.append(call[2]))
    try:
        total = math.ceil(len(rows) / subject.batch_size)
        shown = tqdm(subject.batches(rows), desc=what, total=total, disable=None if subject.progress else True)
        for chosen, inputs in shown:
            batch = Batch.from_inputs(inputs, key=step_key(seed, 0, 0), **known_tokens(subject.tokenizer))
            if isinstance(noise, TokenEdit):
                inputs = {**inputs, "input_ids": noise.edit(batch)}
            added = None if isinstance(noise, TokenEdit) else noise
            with subject.autocast(), tap.open(added, batch) if tap else nullcontext():
                _call(subject.model, inputs)
            found |= dict(zip(chosen, _scores(subject, last.pop(), inputs["labels"]), strict=True))
    finally:
        watch.remove()
        if tap is not None:
            tap.detach()
    return [found[i] for i in range(len(rows))]


def _call(model: Any, inputs: Mapping[str, Any]) -> None:
    """Run the model for its last hidden state, with logits of one position where it can leave out the others."""
    rest = {name: value for name, value in inputs.items() if name != "labels"}
    if "logits_to_keep" in inspect.signature(type(base_model(model)).forward).parameters:
        rest["logits_to_keep"] = 1
    model(**rest, use_cache=False)


def _scores(subject: Subject, output: Any, labels: Tensor) -> list[Scores]:
    """Project the positions before graded tokens through the LM head, a chunk at a time."""
    hidden = output[0] if isinstance(output, tuple) else output.last_hidden_state
    hidden = hidden[:, -labels.shape[1] :]  # prompt tuning puts virtual tokens in front
    graded = labels[:, 1:] != IGNORED
    head, parts = LanguageHead(subject.model), []
    chunks = zip(
        hidden[:, :-1][graded].split(POSITIONS_AT_A_TIME),
        labels[:, 1:][graded].split(POSITIONS_AT_A_TIME),
        strict=True,
    )
    for positions, targets in chunks:
        with subject.autocast():
            rows = head(positions).log_softmax(-1)
        best = rows.max(-1)
        parts.append(
            torch.stack(
                [rows.gather(-1, targets[:, None])[:, 0], best.values.exp(), (best.indices == targets).float()]
            )
        )
    flat = torch.cat(parts, 1).double().cpu().numpy()
    split = np.split(flat, graded.sum(1).cumsum(0)[:-1].tolist(), axis=1)
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
