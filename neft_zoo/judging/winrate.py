"""From judgements, or an annotation file of AlpacaEval's, to win rates."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neft_zoo.errors import NoiseError, shown
from neft_zoo.judging.json_files import read_records
from neft_zoo.judging.length_control import Published, Z, length_controlled
from neft_zoo.judging.pairs import Judgement, Pair


def read_annotations(path: Path) -> tuple[list[Judgement], str, str, str]:
    """Read an annotation file of AlpacaEval's, where `output_2` is ours.

    Returns:
        A judgement per record, and the names of `generator_2`, `generator_1` and the annotator.

    Raises:
        NoiseError: if it cannot be read, is empty, or holds several models or a preference that is not accepted.
    """
    records = read_records(path, "instruction", "output_1", "output_2")
    names = []
    for key in ("generator_2", "generator_1", "annotator"):
        found = {str(record.get(key, "unknown")) for record in records}
        if len(found) > 1:
            raise NoiseError(f"{path} must hold one {key}, got {', '.join(sorted(found))}.")
        names.append(found.pop())
    judgements = [
        Judgement(
            Pair(record["instruction"], record["output_2"], record["output_1"]),
            _preference(path, record.get("preference")),
            tuple(_preference(path, each) for each in record.get("orders") or (None, None)),  # type: ignore[arg-type]
        )
        for record in records
    ]
    return judgements, names[0], names[1], names[2]


def _preference(path: Path, value: Any) -> float | None:
    """Return a preference of 1 to 2 as 0 to 1; 0 was AlpacaEval's draw, null or NaN is missing."""
    if value is None or isinstance(value, float) and math.isnan(value):
        return None
    if not isinstance(value, int | float) or not (value == 0 or 1 <= value <= 2 + 1e-6):
        raise NoiseError(f"a preference in {path} must be a number from 1 to 2, 0 or null, got {shown(value)}.")
    return 0.5 if value == 0 else min(value - 1, 1.0)


def summarize(judgements: Sequence[Judgement], published: Published | None = None) -> dict[str, Any]:
    """Return counts, win rates with 95 % intervals, lengths, and how much the judge minds the order.

    Rates are in percent and ours; ties count half, missing judgements not at all.

    Raises:
        NoiseError: if no judgement is there.
    """
    values = [each.preference for each in judgements if each.preference is not None]
    if not values:
        raise NoiseError(f"at least one judgement must be there, but all {len(judgements)} are missing.")
    ours = [len(each.pair.ours) for each in judgements]
    theirs = [len(each.pair.theirs) for each in judgements]
    controlled = length_controlled([each.preference for each in judgements], ours, theirs, published)
    return {
        "instructions": len(judgements),
        "judged": len(values),
        "missing": len(judgements) - len(values),
        "wins": sum(value > 0.5 for value in values),
        "ties": sum(value == 0.5 for value in values),
        "losses": sum(value < 0.5 for value in values),
        "win_rate": 100 * statistics.fmean(values),
        "win_rate_interval": wilson(statistics.fmean(values), len(values)),
        "standard_error": 100 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None,
        "length_controlled": None if controlled is None else controlled[0],
        "length_controlled_interval": None if controlled is None else list(controlled[1:]),
        "difficulty": published is not None,
        "characters": {"ours": statistics.fmean(ours), "theirs": statistics.fmean(theirs)},
        **position(judgements),
    }


def position(judgements: Sequence[Judgement]) -> dict[str, float | None]:
    """Return how often both orders gave the same verdict and how often the first answer won, ties half, in percent."""
    both = [each.orders for each in judgements if None not in each.orders]
    if not both:
        return {"consistent": None, "first_preferred": None}
    agreed = statistics.fmean(a == b for a, b in both)
    first = statistics.fmean((a + 1 - b) / 2 for a, b in both)  # type: ignore[operator]
    return {"consistent": 100 * agreed, "first_preferred": 100 * first}


def wilson(mean: float, count: int) -> list[float]:
    """Return Wilson's 95 % interval in percent for a mean of values in [0, 1]; with ties among them it is too wide.

    Unlike mean and standard error it stays inside 0 to 100 and has a width where all verdicts agree.
    """
    shrink = 1 + Z**2 / count
    center = (mean + Z**2 / (2 * count)) / shrink
    half = Z / shrink * math.sqrt(max(mean * (1 - mean), 0.0) / count + Z**2 / (4 * count**2))
    return [100 * (center - half), 100 * (center + half)]


def table(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a report says, as pairs of text."""
    rows = [
        ("ours", report["ours"]),
        ("theirs", report["theirs"]),
        ("judge", report["judge"]),
        ("instructions judged", f"{report['judged']} of {report['instructions']}"),
        *[(f"missing: {reason}", str(count)) for reason, count in report["reasons"].items()],
        ("wins, ties, losses", f"{report['wins']}, {report['ties']}, {report['losses']}"),
        ("win rate, %", _rate(report["win_rate"], report["win_rate_interval"])),
        ("length-controlled, %", _rate(report["length_controlled"], report["length_controlled_interval"])),
        ("characters", "{ours:.0f} to {theirs:.0f}".format(**report["characters"])),
    ]
    if report["consistent"] is not None:
        rows.append(("same verdict in both orders, %", f"{report['consistent']:.1f}"))
        rows.append(("first answer preferred, %", f"{report['first_preferred']:.1f}"))
    return rows


def _rate(rate: float | None, interval: Sequence[float] | None) -> str:
    if rate is None or interval is None:
        return "-"
    return f"{rate:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"
