"""check_strategy(): the public conformance suite, for built-in and third-party strategies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from neft_zoo.errors import require
from neft_zoo.noise.additive import AtLayers
from neft_zoo.registry.entries import make
from neft_zoo.registry.strategy import Strategy
from neft_zoo.testing.cases import cases, needs_labels, widths
from neft_zoo.testing.noise_checks import BATCH_CHECKS
from neft_zoo.testing.strategy_checks import STRATEGY_CHECKS

if TYPE_CHECKING:
    from neft_zoo.testing.cases import Case


def check_strategy(strategy: Strategy | str, *, max_examples: int = 30) -> None:
    """Check the properties that every strategy must have, on random batches; needs `neft-zoo[testing]`.

    They are: shape, device and float32; no noise outside `where` or on padding; the stated bound and rms; zero mean;
    the same numbers for a document in every layout; an untouched global random state; no noise at strength 0 and
    double noise at double strength; a clean model, bit for bit, outside an open pass; repr, JSON and YAML round trips.
    Checks that do not apply to a strategy, judging by its parts, are skipped.

    Args:
        strategy: a strategy or an entry's name.
        max_examples: random batches per property.

    Raises:
        AssertionError: with the property that does not hold.
        NoiseError: if hypothesis is not installed, or the name is unknown.

    Example:
        >>> check_strategy("neft_uniform", max_examples=2)
    """
    require("hypothesis", "check_strategy", "testing")
    from hypothesis import HealthCheck, Phase, given, settings

    checked = make(strategy)
    for check in STRATEGY_CHECKS:
        _named(check, checked, lambda check=check: check(checked))
    if checked.noise is None:
        return
    if isinstance(checked.noise, AtLayers):
        checked = replace(checked, noise=checked.noise.noise)
    profile = settings(
        max_examples=max_examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    for check in BATCH_CHECKS:
        profile(given(cases(needs_labels(checked), widths(checked)))(_on_cases(check, checked)))()


def _on_cases(check: Callable[[Strategy, Case], None], strategy: Strategy) -> Callable[[Case], None]:
    def run(case: Case) -> None:
        _named(check, strategy, lambda: check(strategy, case))

    return run


def _named(check: Callable[..., None], strategy: Strategy, run: Callable[[], None]) -> None:
    try:
        run()
    except AssertionError as error:
        what = check.__name__.lstrip("_").replace("_", " ")
        raise AssertionError(f"{strategy.name}: {what} does not hold: {error}") from error
