"""The length-controlled win rate: an estimate of the win rate if both models' answers had equal length.

A logistic regression models the preference by the model, tanh of the length difference, and the instruction's
difficulty; the win rate is then predicted for a length difference of 0. Dubois, Galambosi, Liang and Hashimoto,
"Length-Controlled AlpacaEval", arXiv 2404.04475; constants as in AlpacaEval's `length_controlled_v1`.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neft_zoo.errors import NoiseError
from neft_zoo.judging.logistic import Data, fit, losses, profile_interval, sigmoid

STRENGTHS = 10  # of the L1 penalty: 1/C for C from 1e-4 to 1e4
FOLDS = 5
GAMED = 0.1  # weight of a judgement of a gamed baseline
FEWEST = 10
FEWEST_SHARE = 0.9  # minimum share of the published instructions in annotations
NEEDS_GAMED = "needs AlpacaEval's difficulties and judgements of gamed baselines (--gamed)"
ROUNDING = 1e-6  # by which a published preference may leave [0, 1]
EDGE = 0.025  # minimum share of judgements on each side of equal lengths


@dataclass(frozen=True)
class LengthControlled:
    """The length-controlled win rate in percent with its 95 % interval, or a note on why there is none."""

    rate: float | None = None
    interval: Sequence[float] | None = None
    note: str | None = None


@dataclass(frozen=True)
class Published:
    """AlpacaEval's `df_gamed.csv`: judgements of baselines that were asked for short or long answers.

    Attributes:
        difficulty: of every instruction, in AlpacaEval's order.
        rows: for every judgement, the preference in [0, 1], the standardized length difference, the difficulty, and
            whether it is not a gamed baseline.
    """

    difficulty: Sequence[float]
    rows: Sequence[tuple[float, float, float, bool]]


def read_published(path: Path) -> Published:
    """Read `df_gamed.csv`.

    Raises:
        NoiseError: if it cannot be read, lacks a column, or a number is not finite.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            table = list(csv.DictReader(file))
        difficulty = {int(row["index"]): _finite(row["instruction_difficulty"]) for row in table}
        rows = [
            (
                _preference(row["preference"]),
                _finite(row["std_delta_len"]),
                _finite(row["instruction_difficulty"]),
                row["not_gamed_baseline"] == "True",
            )
            for row in table
            if row["preference"]
        ]
        return Published([difficulty[i] for i in range(len(difficulty))], rows)
    except OSError as error:
        raise NoiseError(f"{path} must be a file that can be read: {error.strerror}.") from None
    except (KeyError, ValueError, TypeError):
        columns = "index, preference (0 to 1), std_delta_len and instruction_difficulty, and with not_gamed_baseline"
        raise NoiseError(
            f"{path} must be AlpacaEval's df_gamed.csv, with finite numbers in the columns {columns}."
        ) from None


def _finite(text: str) -> float:
    # One number that is not finite would spread to every weight of the fit.
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _preference(text: str) -> float:
    number = _finite(text)
    if not -ROUNDING <= number <= 1 + ROUNDING:
        raise ValueError(text)
    return min(max(number, 0.0), 1.0)


def length_controlled(
    preferences: Sequence[float | None],
    ours: Sequence[int],
    theirs: Sequence[int],
    published: Published | None,
) -> LengthControlled:
    """Return the length-controlled win rate, or the reason why the data does not determine it.

    If records for a few of the published instructions are missing, the others are matched by position, as in
    AlpacaEval.

    Args:
        preferences: 1 if ours won, 0 if theirs did, None if missing.
        ours, theirs: lengths in characters.
        published: difficulties and judgements of gamed baselines. Without these, the effect of length is estimated
            from one model's answers, which may all be shorter than the baseline's; the rate at equal lengths is then
            an extrapolation.

    Raises:
        NoiseError: if scipy is missing, or the number of instructions differs too much from the published ones.
    """
    if published is None:
        return LengthControlled(note=NEEDS_GAMED)
    check_count(len(preferences), published)
    judged = np.array([preference is not None for preference in preferences])
    if judged.sum() < FEWEST:
        return LengthControlled(note=f"needs at least {FEWEST} judgements")
    if all(row[3] for row in published.rows):
        return LengthControlled(note=NEEDS_GAMED)
    difference = np.array(theirs, float) - np.array(ours, float)
    if difference.any() and not difference.std():
        return LengthControlled(note="all lengths differ by as much: nothing tells what equal ones would do")
    features, at_equal_length = _features(difference, published)
    targets = np.array([0.0 if preference is None else preference for preference in preferences])
    own = features[judged], targets[judged], np.ones(judged.sum())
    a, b, c = (np.concatenate(parts) for parts in zip(_gamed(published), own, strict=True))
    data: Data = (a, b, c)
    shorter, longer = np.quantile(data[0][:, 1], [EDGE, 1 - EDGE])
    if not shorter <= 0 <= longer:
        return LengthControlled(note="equal lengths lie outside the data: the rate there would be an extrapolation")
    weights = fit(*data, _strength(*data))
    rate = float(sigmoid(at_equal_length @ weights).mean())
    low, high = profile_interval(data, at_equal_length)
    return LengthControlled(100 * rate, [100 * min(low, rate), 100 * max(high, rate)])


def check_count(instructions: int, published: Published) -> None:
    """Raise unless a number of instructions is that of the published difficulties, or hardly fewer.

    Raises:
        NoiseError: if it is not.
    """
    total = len(published.difficulty)
    if not FEWEST_SHARE * total <= instructions <= total:
        raise NoiseError(
            f"with difficulties, annotations must be those of AlpacaEval's {total} "
            f"instructions in their order, got {instructions}."
        )


def _features(difference: np.ndarray, published: Published) -> tuple[np.ndarray, np.ndarray]:
    """Return the regression features (identity, tanh of the length difference, difficulty), with and without length.

    If all lengths are equal, the difference is 0.
    """
    deviation = difference.std(ddof=1)
    length = np.tanh(difference / deviation) if deviation > 0 else 0 * difference
    difficulty = np.array(published.difficulty[: len(difference)])
    features = np.stack([np.ones_like(difference), length, difficulty], axis=1)
    at_equal_length = features.copy()
    at_equal_length[:, 1] = 0
    return features, at_equal_length


def _gamed(published: Published) -> Data:
    """Return the published judgements as data, with 0 for our model and a lower weight for gamed baselines."""
    rows = np.array(published.rows, float).reshape(-1, 4)
    features = np.stack([rows[:, 3], np.tanh(rows[:, 1]), rows[:, 2]], axis=1)
    return features, rows[:, 0], np.where(rows[:, 3] > 0, 1.0, GAMED)


def _strength(features: np.ndarray, targets: np.ndarray, counts: np.ndarray) -> float:
    """Return the C with the lowest cross-validated loss."""
    fold = np.arange(len(targets)) % FOLDS

    def held_out(strength: float) -> float:
        parts = []
        for k in range(FOLDS):
            kept, held = fold != k, fold == k
            weights = fit(features[kept], targets[kept], counts[kept], strength)
            parts.append((losses(features[held] @ weights, targets[held]) * counts[held]).mean())
        return float(np.mean(parts))

    return min(np.logspace(-4, 4, STRENGTHS), key=held_out)
