"""Logistic regression on preferences in [0, 1]: penalized fit, and profile-likelihood intervals of a mean rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from neft_zoo.errors import require

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

# Features (N, K), targets in [0, 1] (N,) and weight of each row (N,).
Data: TypeAlias = "tuple[np.ndarray, np.ndarray, np.ndarray]"

DROP = 3.841459 / 2  # drop of the log-likelihood at the ends of a 95 % interval: half a chi-squared quantile
LARGEST = 30.0  # score that stands for infinity: its rate differs from 0 or 1 by 1e-13


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
        loss = (losses(scores, targets) * counts).sum()
        slope = features.T @ ((sigmoid(scores) - targets) * counts)
        gradient = np.concatenate([1 + strength * slope, 1 - strength * slope])
        return (split.sum() + strength * loss) / total, gradient / total

    settings = {"maxiter": 500, "ftol": 1e-12, "gtol": 1e-8}
    found = minimize(
        objective, np.zeros(2 * width), jac=True, method="L-BFGS-B", bounds=[(0, None)] * (2 * width), options=settings
    )
    return found.x[:width] - found.x[width:]


def profile_interval(data: Data, points: np.ndarray) -> tuple[float, float]:
    """Return the 95 % profile-likelihood interval of the mean rate at some points.

    It contains every rate for which some weights have a log-likelihood within half the chi-squared quantile of the
    maximum. Unlike an interval from standard errors, it has a width even if all targets agree, and its sides can
    differ in length. Targets between 0 and 1 vary less than a binomial likelihood assumes, which makes it
    conservative.

    Args:
        data: features (N, K), targets and weights of the rows.
        points: features (M, K) at which rates are averaged.
    """
    minimize, features, targets, counts = require_optimizer(), *data

    def shifted(pull: float) -> tuple[float, float]:
        """Return loss and mean rate at the weights that minimize loss - pull * logit(rate)."""

        def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
            scores, rates = features @ weights, sigmoid(points @ weights)
            mean = np.clip(rates.mean(), 1e-13, 1 - 1e-13)
            logit = np.log(mean / (1 - mean))
            slope = (points * (rates * (1 - rates))[:, None]).mean(axis=0) / (mean * (1 - mean))
            loss = (losses(scores, targets) * counts).sum()
            gradient = features.T @ ((sigmoid(scores) - targets) * counts)
            return loss - pull * logit, gradient - pull * slope

        bounds = [(-LARGEST, LARGEST)] * features.shape[1]
        settings = {"maxiter": 500, "ftol": 1e-13, "gtol": 1e-9}
        start = np.zeros(features.shape[1])
        weights = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=settings).x
        loss = (losses(features @ weights, targets) * counts).sum()
        return float(loss), float(sigmoid(points @ weights).mean())

    least, _ = shifted(0.0)
    low, high = (_end(shifted, least + DROP, side) for side in (-1, 1))
    return low, high


def _end(shifted: Callable[[float], tuple[float, float]], limit: float, side: int) -> float:
    """Return the mean rate at which the loss reaches a limit, found by bisection over the pull to one side."""
    reached, pull = 0.0, 0.5
    while shifted(side * pull)[0] < limit:
        reached, pull = pull, 2 * pull
        if pull > 2**20:  # the data does not exclude a rate of 0 or 1
            return float(side > 0)
    for _ in range(20):
        middle = (reached + pull) / 2
        reached, pull = (middle, pull) if shifted(side * middle)[0] < limit else (reached, middle)
    return shifted(side * (reached + pull) / 2)[1]


def losses(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the log loss of every row in nats."""
    return np.logaddexp(0, scores) - targets * scores


def sigmoid(scores: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-scores)), without overflow."""
    return np.exp(-np.logaddexp(0, -scores))


def require_optimizer() -> Callable[..., OptimizeResult]:
    """Return scipy's `minimize`.

    Raises:
        NoiseError: if scipy is missing.
    """
    return require("scipy.optimize", "the length-controlled win rate", "judge").minimize
