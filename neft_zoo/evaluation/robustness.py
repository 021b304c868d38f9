"""Loss and flips under replaced tokens and embedding noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neft_zoo.errors import NoiseError
from neft_zoo.evaluation.losses import noise_session, score, summary
from neft_zoo.evaluation.results import Flips, NoisePoint, ReplacementPoint
from neft_zoo.evaluation.subject import Row, Subject
from neft_zoo.noise import randomness
from neft_zoo.noise.additive import AtLayers, Noise, TokenEdit
from neft_zoo.noise.batch import Batch, step_key
from neft_zoo.noise.schedules import check_number
from neft_zoo.passes.anatomy import find_embedding, find_table
from neft_zoo.passes.preparation import prepare
from neft_zoo.registry.entries import entry, make

if TYPE_CHECKING:
    from jaxtyping import Float, Int

POSITIONS_AT_A_TIME = 512


@dataclass(frozen=True)
class ReplaceTokens:
    """Replaces random input tokens, except special ones, by random others; the labels are unchanged.

    Args:
        rate: probability that a token is replaced, in [0, 1].
        others: ids to draw from, with equal probability.
    """

    rate: float
    others: tuple[int, ...]

    def __post_init__(self) -> None:
        check_number("rate", self.rate, 0, 1)

    def edit(self, batch: Batch) -> Int[Tensor, "B L"]:
        chosen = batch.real & ~batch.special & (randomness.unit(batch.stream("replace")) < self.rate)
        place = (randomness.unit(batch.stream("by")) * len(self.others)).long()
        return batch.input_ids.where(~chosen, batch.input_ids.new_tensor(self.others)[place])


def replacement_curve(
    subject: Subject, rows: Sequence[Row], rates: Sequence[float], seed: int = 0
) -> list[ReplacementPoint]:
    """Return the loss for each share of randomly replaced input tokens."""
    tokens = noise_session(subject, None).batch.tokens
    reserved = {*tokens["special_ids"], *tokens["media_ids"]}  # a placeholder without an image would fail
    known = min(len(subject.tokenizer), len(find_table(subject.model)))  # either may be padded
    others = tuple(i for i in range(known) if i not in reserved)
    curve = []
    for rate in rates:
        scores = score(subject, rows, ReplaceTokens(rate, others), seed, f"replace {rate:g}")
        curve.append(ReplacementPoint(rate, summary(scores).loss))
    return curve


def noise_curve(
    subject: Subject, rows: Sequence[Row], name: str, alphas: Sequence[float], seed: int = 0
) -> list[NoisePoint]:
    """Return loss and flips for each strength of an embedding noise.

    Args:
        subject: the model.
        rows: tokenized records.
        name: a strategy with an argument `alpha` and noise on the embeddings.
        alphas: values of `alpha`.
        seed: of the noise.

    Raises:
        NoiseError: if the strategy has no `alpha`, or does not add noise to the embeddings.
    """
    check_noise(name)
    curve = []
    for alpha in alphas:
        noise: Any = prepare(make({"name": name, "alpha": alpha}).noise, subject.model, None)
        loss = summary(score(subject, rows, noise, seed, f"alpha {alpha:g}")).loss
        curve.append(NoisePoint(alpha, loss, **vars(flips(subject, rows, noise, seed))))
    return curve


def check_noise(name: str) -> None:
    """Raise unless a strategy adds noise of strength `alpha` to the embeddings.

    Raises:
        NoiseError: if it does not, or does not exist.
    """
    if "alpha" not in entry(name).parameters:
        raise NoiseError(f"noise must be a strategy with an argument alpha, got {name!r}.")
    if make(name).noise is None or isinstance(make(name).noise, TokenEdit | AtLayers):
        raise NoiseError(f"noise must be added to the embeddings, got {name!r}.")


@torch.no_grad()
def flips(subject: Subject, rows: Sequence[Row], noise: Noise, seed: int = 0) -> Flips:
    """Return how often the noisy embedding is closer to another row of the embedding table than to the token's own.

    Rows that equal the token's own are not counted as other rows.
    """
    embedding = find_embedding(subject.model)
    weight: Any = embedding.weight
    table = embedding(torch.arange(len(weight), device=weight.device)).float()  # some models scale the output
    flipped, tokens, session = [], [], noise_session(subject, None)
    for _, inputs in subject.batches(rows):
        batch = session.batch(inputs, step_key(seed, 0, 0))
        embeds = embedding(batch.input_ids)
        noisy = (embeds.float() + noise(embeds, batch))[batch.real]
        ids = batch.input_ids[batch.real]
        chunks = zip(noisy.split(POSITIONS_AT_A_TIME), ids.split(POSITIONS_AT_A_TIME), strict=True)
        flipped += [_other_is_nearer(table, points, own) for points, own in chunks]
        tokens.append(ids)
    moved, ids = torch.cat(flipped), torch.cat(tokens)
    share = len(ids[moved].unique()) / len(ids.unique())
    return Flips(flipped=moved.double().mean().item(), flipped_tokens=share)


def _other_is_nearer(table: Float[Tensor, "V D"], points: Float[Tensor, "N D"], own: Int[Tensor, " N"]) -> Tensor:
    """Find the nearest row by squared distances without |point|^2, which is the same for all rows.

    Rounding may prefer another row that is about as near, so the distances themselves decide.
    """
    nearest = (points @ table.T - table.square().sum(-1) / 2).argmax(1)
    return (points - table[nearest]).square().sum(-1) < (points - table[own]).square().sum(-1)
