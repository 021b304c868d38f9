"""The length-controlled win rate: what the win rate would be if both models wrote equally long answers.

A logistic regression says how the preference depends on the model, on tanh of the length difference and on how
difficult the instruction is; the win rate is then predicted for no difference in length. Dubois, Galambosi, Liang and
Hashimoto, "Length-Controlled AlpacaEval", arXiv 2404.04475; constants as in AlpacaEval's `length_controlled_v1`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from neft_zoo.errors import NoiseError, require

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

# Features (N, K), targets in [0, 1] (N,) and how much each row counts (N,).
Data: TypeAlias = "tuple[np.ndarray, np.ndarray, np.ndarray]"

STRENGTHS = 10  # of the L1 penalty: 1/C for C from 1e-4 to 1e4
FOLDS = 5
GAMED = 0.1  # weight of a judgement of a gamed baseline
FEWEST = 10
FEWEST_SHARE = 0.9  # of the published instructions that annotations must have
Z = 1.959964  # 95 %


@dataclass(frozen=True)
class Published:
    """AlpacaEval's `df_gamed.csv`: judgements of baselines that were asked to be short or long.

    Attributes:
        difficulty: of every instruction, in AlpacaEval's order.
        rows: preference in [0, 1], standardized length difference, difficulty and whether it is no gamed baseline, of
            every judgement.
    """

    difficulty: Sequence[float]
    rows: Sequence[tuple[float, float, float, bool]]


def read_published(path: Path) -> Published:
    """Read `df_gamed.csv`.

    Raises:
        NoiseError: if it cannot be read or lacks a column.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            table = list(csv.DictReader(file))
        difficulty = {int(row["index"]): float(row["instruction_difficulty"]) for row in table}
        names = ("preference", "std_delta_len", "instruction_difficulty")
        rows = [
            (*(float(row[name]) for name in names), row["not_gamed_baseline"] == "True")
            for row in table
            if row["preference"]
        ]
        return Published([difficulty[i] for i in range(len(difficulty))], rows)  # type: ignore[arg-type]
    except OSError as error:
        raise NoiseError(f"{path} must be a file that can be read: {error.strerror}.") from None
    except (KeyError, ValueError, TypeError):
        columns = "index, preference, std_delta_len, instruction_difficulty and not_gamed_baseline"
        raise NoiseError(f"{path} must be AlpacaEval's df_gamed.csv, with the columns {columns}.") from None


def length_controlled(
    preferences: Sequence[float | None],
    ours: Sequence[int],
    theirs: Sequence[int],
    published: Published | None = None,
) -> tuple[float, float, float] | None:
    """Return the length-controlled win rate and its 95 % interval, in percent.

    Args:
        preferences: 1 where ours won, 0 where theirs did, None where missing.
        ours, theirs: lengths in characters.
        published: difficulties and judgements of gamed baselines; without it the model has no difficulty term. Where
            a few of its instructions have no record, the others are told by their place, as AlpacaEval does.

    Returns:
        Rate, lower and upper end; None for fewer than 10 judgements.

    Raises:
        NoiseError: if scipy is missing, or the instructions are not about as many as the published ones.
    """
    whole = 0 if published is None else len(published.difficulty)
    if published is not None and not FEWEST_SHARE * whole <= len(preferences) <= whole:
        raise NoiseError(
            f"with difficulties, annotations must be those of AlpacaEval's {whole} "
            f"instructions in their order, got {len(preferences)}."
        )
    judged = np.array([each is not None for each in preferences])
    if judged.sum() < FEWEST:
        return None
    features, clean = _features(np.array(theirs, float) - np.array(ours, float), published)
    targets = np.array([0.0 if each is None else each for each in preferences])
    own = features[judged], targets[judged], np.ones(judged.sum())
    a, b, c = (np.concatenate(parts) for parts in zip(_gamed(published, features.shape[1]), own, strict=True))
    data: Data = (a, b, c)
    weights = fit(*data, _strength(*data))
    rates = _sigmoid(clean @ weights)
    return 100 * float(rates.mean()), *_interval(rates, clean, weights, data)


def _interval(rates: np.ndarray, clean: np.ndarray, weights: np.ndarray, data: Data) -> tuple[float, float]:
    """Return the 95 % interval of the mean rate in percent: for other judgements and for other instructions.

    The weights' part is the sandwich estimator's, the instructions' part the spread of their rates; both are taken to
    the logit scale, where the interval cannot leave 0 to 100.
    """
    features, targets, counts = data
    found, mean = _sigmoid(features @ weights), rates.mean()
    bread = np.linalg.pinv(features.T @ (features * (counts * found * (1 - found))[:, None]))
    scores = features * (counts * (found - targets))[:, None]
    slope = (clean * (rates * (1 - rates))[:, None]).mean(axis=0)
    variance = slope @ bread @ (scores.T @ scores) @ bread @ slope + rates.var() / len(rates)
    deviation = np.sqrt(variance) / (mean * (1 - mean))
    logit = np.log(mean / (1 - mean))
    low, high = (100 * float(_sigmoid(logit + sign * Z * deviation)) for sign in (-1, 1))
    return low, high


def _features(difference: np.ndarray, published: Published | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the model's identity, tanh of the standardized length difference and difficulty, with length and without.

    Where all lengths differ by as much, the difference says nothing and is left at 0.
    """
    deviation = difference.std(ddof=1)
    columns = [np.ones_like(difference), np.tanh(difference / deviation) if deviation > 0 else 0 * difference]
    columns += [] if published is None else [np.array(published.difficulty[: len(difference)])]
    features = np.stack(columns, axis=1)
    clean = features.copy()
    clean[:, 1] = 0
    return features, clean


def _gamed(published: Published | None, width: int) -> Data:
    """Return the published judgements as data: of gamed baselines our model's column is 0, and they weigh less."""
    rows = np.array([] if published is None else published.rows, float).reshape(-1, 4)
    features = np.stack([rows[:, 3], np.tanh(rows[:, 1]), rows[:, 2]], axis=1)[:, :width]
    return features, rows[:, 0], np.where(rows[:, 3] > 0, 1.0, GAMED)


def _strength(features: np.ndarray, targets: np.ndarray, counts: np.ndarray) -> float:
    """Return the C with the lowest cross-validated loss."""
    fold = np.arange(len(targets)) % FOLDS

    def held_out(strength: float) -> float:
        parts = []
        for k in range(FOLDS):
            kept, held = fold != k, fold == k
            weights = fit(features[kept], targets[kept], counts[kept], strength)
            parts.append((_losses(features[held] @ weights, targets[held]) * counts[held]).mean())
        return float(np.mean(parts))

    return min(np.logspace(-4, 4, STRENGTHS), key=held_out)


def fit(features: np.ndarray, targets: np.ndarray, counts: np.ndarray, strength: float) -> np.ndarray:
    """Return the weights that minimize |w|_1 + C * sum of weighted log losses, of targets in [0, 1].

    Args:
        features: (N, K).
        targets: (N,).
        counts: (N,) weight of each row.
        strength: C.
    """
    minimize = require_optimizer()
    width, total = features.shape[1], strength * counts.sum() + 1

    def objective(split: np.ndarray) -> tuple[float, np.ndarray]:
        # w = u - v with u, v >= 0 makes the penalty smooth; one of both is 0 at the minimum.
        scores = features @ (split[:width] - split[width:])
        loss = (_losses(scores, targets) * counts).sum()
        slope = features.T @ ((_sigmoid(scores) - targets) * counts)
        gradient = np.concatenate([1 + strength * slope, 1 - strength * slope])
        return (split.sum() + strength * loss) / total, gradient / total

    settings = {"maxiter": 500, "ftol": 1e-12, "gtol": 1e-8}
    found = minimize(
        objective, np.zeros(2 * width), jac=True, method="L-BFGS-B", bounds=[(0, None)] * (2 * width), options=settings
    )
    return found.x[:width] - found.x[width:]


def _losses(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, scores) - targets * scores


def _sigmoid(scores: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -scores))


def require_optimizer() -> Callable[..., OptimizeResult]:
    """Return scipy's `minimize`.

    Raises:
        NoiseError: if scipy is missing.
    """
    return require("scipy.optimize", "the length-controlled win rate", "judge").minimize
