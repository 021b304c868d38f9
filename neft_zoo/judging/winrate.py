"""Win rates from judgements, or from an AlpacaEval annotation file."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neft_zoo.errors import NoiseError, shown
from neft_zoo.evaluation.intervals import wilson
from neft_zoo.evaluation.serialization import Serializable
from neft_zoo.judging.json_files import JsonRecord, check_unique, read_records
from neft_zoo.judging.length_control import Published, length_controlled
from neft_zoo.judging.pairs import Judgement, Pair


@dataclass(frozen=True)
class JudgedBy(Serializable):
    """Models and judge of a comparison.

    Attributes:
        ours: name of our model.
        theirs: name of the other model.
        judge: name of the judge.
        reasons: count of each reason for a missing verdict.
    """

    ours: str
    theirs: str
    judge: str
    reasons: Mapping[str, int]


@dataclass(frozen=True)
class MeanCharacters(Serializable):
    """Mean length of both models' answers."""

    ours: float
    theirs: float


@dataclass(frozen=True)
class WinRates(Serializable):
    """Counts, and win rates of our model in percent with their 95 % intervals.

    Attributes:
        instructions: number of pairs.
        judged: number of pairs with a judgement.
        missing: number of pairs without one.
        wins: number of pairs in which ours is preferred.
        ties: number of pairs in which neither is preferred.
        losses: number of pairs in which theirs is preferred.
        win_rate: mean preference; ties count half, missing judgements do not count.
        win_rate_interval: Wilson's interval.
        standard_error: of the win rate; None with one judgement, or if all agree.
        length_controlled: win rate at equal length; None if the data does not determine it.
        length_controlled_interval: its profile-likelihood interval.
        length_controlled_note: why there is none.
        difficulty: whether the instructions' published difficulties were used.
        characters: mean length of the judged answers.
        consistent: percentage of pairs with the same verdict in both orders; None without orders.
        first_preferred: percentage of verdicts for the first answer, with ties as half; None without orders.
    """

    instructions: int
    judged: int
    missing: int
    wins: int
    ties: int
    losses: int
    win_rate: float
    win_rate_interval: Sequence[float]
    standard_error: float | None
    length_controlled: float | None
    length_controlled_interval: Sequence[float] | None
    length_controlled_note: str | None
    difficulty: bool
    characters: MeanCharacters
    consistent: float | None
    first_preferred: float | None


# Base classes in reverse order of their fields: names come first in the file.
@dataclass(frozen=True)
class JudgeReport(WinRates, JudgedBy):
    """A comparison of two models; `judged.json` has its fields as keys."""


def read_annotations(path: Path) -> tuple[list[Judgement], JudgedBy]:
    """Return the judgements in an AlpacaEval annotation file, where `output_2` is ours.

    Raises:
        NoiseError: if it cannot be read, is empty, repeats an instruction, or has several models or an invalid
            preference.
    """
    records = read_records(path, "instruction", "output_1", "output_2")
    check_unique(path, [record["instruction"] for record in records])
    names = {}
    for key in ("generator_2", "generator_1", "annotator"):
        values = {str(record.get(key, "unknown")) for record in records}
        if len(values) > 1:
            raise NoiseError(f"{path} must hold one {key}, got {', '.join(sorted(values))}.")
        names[key] = values.pop()
    judgements = []
    for record in records:
        pair = Pair(record["instruction"], ours=record["output_2"], theirs=record["output_1"])
        judgements.append(Judgement(pair, _preference(path, record.get("preference")), _orders(path, record)))
    return judgements, JudgedBy(names["generator_2"], names["generator_1"], names["annotator"], {})


def _orders(path: Path, record: JsonRecord) -> tuple[float | None, float | None]:
    orders = record.get("orders") or [None, None]
    if not isinstance(orders, list) or len(orders) != 2:
        raise NoiseError(f"orders in {path} must be two preferences, got {shown(orders)}.")
    return _preference(path, orders[0]), _preference(path, orders[1])


def _preference(path: Path, value: object) -> float | None:
    """Return a preference from 1 to 2 as 0 to 1; 0 is a draw in old AlpacaEval files, null or NaN is missing."""
    if value is None or isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value == 0 or 1 <= value <= 2 + 1e-6):
        raise NoiseError(f"a preference in {path} must be a number from 1 to 2, 0 or null, got {shown(value)}.")
    return 0.5 if value == 0 else min(value - 1, 1.0)


def summarize(judgements: Sequence[Judgement], published: Published | None = None) -> WinRates:
    """Return counts and win rates.

    Args:
        judgements: of all pairs.
        published: difficulties of AlpacaEval's instructions, for the length-controlled win rate.

    Raises:
        NoiseError: if all judgements are missing.
    """
    preferences = [judgement.preference for judgement in judgements]
    values = [value for value in preferences if value is not None]
    if not values:
        raise NoiseError(f"at least one judgement must be there, but all {len(judgements)} are missing.")
    ours = [len(judgement.pair.ours) for judgement in judgements]
    theirs = [len(judgement.pair.theirs) for judgement in judgements]
    controlled = length_controlled(preferences, ours, theirs, published)
    consistent, first_preferred = position_bias(judgements)
    return WinRates(
        instructions=len(judgements),
        judged=len(values),
        missing=len(judgements) - len(values),
        wins=sum(value > 0.5 for value in values),
        ties=sum(value == 0.5 for value in values),
        losses=sum(value < 0.5 for value in values),
        win_rate=100 * statistics.fmean(values),
        win_rate_interval=[100 * end for end in wilson(statistics.fmean(values), len(values))],
        standard_error=100 * statistics.stdev(values) / math.sqrt(len(values)) if len({*values}) > 1 else None,
        length_controlled=controlled.rate,
        length_controlled_interval=controlled.interval,
        length_controlled_note=controlled.note,
        difficulty=published is not None,
        characters=_characters([judgement.pair for judgement in judgements if judgement.preference is not None]),
        consistent=consistent,
        first_preferred=first_preferred,
    )


def _characters(pairs: Sequence[Pair]) -> MeanCharacters:
    return MeanCharacters(
        statistics.fmean(len(pair.ours) for pair in pairs), statistics.fmean(len(pair.theirs) for pair in pairs)
    )


def position_bias(judgements: Sequence[Judgement]) -> tuple[float | None, float | None]:
    """Return the percentage of pairs with the same verdict in both orders, and of verdicts for the first answer.

    Equal answers do not count: nobody is asked about them, so they show nothing about a judge.
    """
    asked = [judgement.orders for judgement in judgements if judgement.pair.ours != judgement.pair.theirs]
    orders = [(a, b) for a, b in asked if a is not None and b is not None]
    if not orders:
        return None, None
    consistent = statistics.fmean(ours_first == theirs_first for ours_first, theirs_first in orders)
    first = statistics.fmean((ours_first + 1 - theirs_first) / 2 for ours_first, theirs_first in orders)
    return 100 * consistent, 100 * first


def table(report: JudgeReport) -> list[tuple[str, str]]:
    """Return the rows of a report, with label and value as text."""
    controlled = _rate(report.length_controlled, report.length_controlled_interval)
    controlled = controlled if report.length_controlled_note is None else f"none: {report.length_controlled_note}"
    rows = [
        ("ours", report.ours),
        ("theirs", report.theirs),
        ("judge", report.judge),
        ("instructions judged", f"{report.judged} of {report.instructions}"),
        *[(f"missing: {reason}", str(count)) for reason, count in report.reasons.items()],
        ("wins, ties, losses", f"{report.wins}, {report.ties}, {report.losses}"),
        ("win rate, %", _rate(report.win_rate, report.win_rate_interval)),
        ("length-controlled, %", controlled),
        ("characters", f"{report.characters.ours:.0f} to {report.characters.theirs:.0f}"),
    ]
    if report.consistent is not None and report.first_preferred is not None:
        rows.append(("same verdict in both orders, %", f"{report.consistent:.1f}"))
        rows.append(("first answer preferred, %", f"{report.first_preferred:.1f}"))
    return rows


def _rate(rate: float | None, interval: Sequence[float] | None) -> str:
    if rate is None or interval is None:
        return "-"
    return f"{rate:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"
