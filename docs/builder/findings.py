"""The NEFTune paper's qualitative findings, compared with the results by a rule stated on the page."""

from __future__ import annotations

from dataclasses import dataclass, field

from markupsafe import Markup

from neft_zoo.compare.experiment import POINTS, STEPS, Experiment, Row
from neft_zoo.compare.formats import interval_text
from neft_zoo.compare.metrics import metric
from neft_zoo.compare.records import When
from neft_zoo.compare.samples import answers, count_test_records
from neft_zoo.compare.statistics import Difference
from neft_zoo.compare.summary import difference
from neft_zoo.compare.verdicts import Verdict, one_test
from neft_zoo.compare.verdicts import judge as judge_question

from . import sweep
from .claims import CLAIMS, CUT, Claim
from .tables import table, unbroken
from .words import row_name, same_data, settings, title

ALPHA = 5.0  # the entry's default, chosen before looking at results
PAPERS = 15.0  # the paper's most frequent one
SEEDS = 3  # fewer pairs give a meaningless interval
SAME = "practically the same"
YES, NO, UNKNOWN, MISSING = "reproduced", "contradicted", "undecided", "not run"
RULE = f"""
## The rule

The difference is `neft_uniform` minus `none`, paired by seed, at equal steps; for the last finding, minus
`neft_gaussian` at the same energy. Alpha is {ALPHA:g}, this package's default, or {PAPERS:g} if only that was run: the
paper uses 5, 10 and 15, and {PAPERS:g} most often. Other values are listed, but do not count.
Every difference gets the verdict of [Comparison](comparison.md), from its interval and the metric's margin, at the end
of training *and* at each run's best checkpoint, both corrected together. A finding is

* **{YES}** if the verdict is the paper's at both: the stated direction, or *practically the same*;
* **{NO}** if it is another at one of them: the opposite direction, or *practically the same* where the paper has a
  difference;
* **{UNKNOWN}** otherwise, with the effect that these seeds would have shown; also with fewer than {SEEDS} pairs, if
  the metric was not measured, if runs are *identical*, which tests nothing, if plain training has memorized nothing,
  and if lengths are *practically the same* but more than {CUT:.0%} of plain training's answers are truncated;
* *{MISSING}* if one of the two was not trained on that data.

Measures of the final model only (answers, memorization) are judged at the end alone, and the table says so. So is the
train loss: the best checkpoints of two runs are at different epochs, and train loss decreases with every epoch.

Each finding is a separate question about one strategy, stated before looking. Pages that ask which of many strategies
helps correct the same difference over all of these, so it can be undecided there.
"""


@dataclass(frozen=True)
class Judgement:
    """The outcome of a claim in an experiment."""

    status: str
    why: str
    differences: dict[When, Difference] = field(default_factory=dict)
    verdicts: dict[When, Verdict] = field(default_factory=dict)
    alpha: float = ALPHA


def page(experiments: list[Experiment]) -> str:
    """Return the page in Markdown."""
    intro = (
        "The NEFTune paper describes what noise does to a model, beside its win rates. Each of its findings is "
        "tested here in this repository's own runs. The outcomes are computed from the results when the site is built."
    )
    parts = ["---\nhide: [toc]\n---\n\n# Findings", intro, summary(experiments), settings(chosen(experiments)), RULE]
    for claim in CLAIMS:
        kind = metric(claim.name)
        shown = f"Here: {kind.label}{f', {kind.unit}' if kind.unit else ''}; up to {kind.margin:g} counts as the same."
        parts += [f"## {claim.title}", f"In the paper: {claim.source}. {shown}"]
        parts += [sweep.figures(experiments)] if claim.gaussian else []
        details = [detail(claim, each) for each in chosen(experiments)]
        parts += [line for line in details if line] or ["Not run."]
    return "\n\n".join(part for part in parts if part) + "\n"


def chosen(experiments: list[Experiment]) -> list[Experiment]:
    return [each for each in experiments if each.budget == STEPS]


def summary(experiments: list[Experiment], intervals: bool = True) -> str:
    """Return the table of findings by data set, with or without their intervals."""
    used = chosen(experiments)
    if not used:
        return table(("finding", "outcome"), [(claim.title, "not run") for claim in CLAIMS])
    lines = [(claim.title, *(_brief(claim, each, intervals) for each in used)) for claim in CLAIMS]
    found = table(("finding", *(title(each) for each in used)), lines)
    return f"{found}\n\n{shared}" if (shared := same_data(used)) else found


def _marked(status: str) -> Markup:
    kind = {YES: "yes", NO: "no"}.get(status, "unknown")
    return Markup('<span class="outcome {}">{}</span>').format(kind, status)


def _brief(claim: Claim, experiment: Experiment, intervals: bool) -> str:
    judgement, digits, lines = judge(claim, experiment), metric(claim.name).digits, []
    lines += [f"at alpha {judgement.alpha:g}"] if judgement.alpha != ALPHA else []
    for point, each in judgement.differences.items():
        verdict = judgement.verdicts.get(point)
        said = [_interval(each, digits)] if intervals else []
        tells = verdict is not None and (verdict.visible is not None or verdict.word == "identical")
        said += [verdict.text(digits)] if judgement.status == UNKNOWN and verdict and tells else []
        lines += [f"{point} {', '.join(said)}"] if said else []
    lines += [judgement.why] if judgement.status == UNKNOWN and not lines else []
    lines += failures(claim, experiment)
    return "<br>".join([_marked(judgement.status), *(f"<small>{line}</small>" for line in lines)])


def compared(claim: Claim, row: Row, experiment: Experiment) -> Row | None:
    """Return the row that a row is compared with."""
    if not claim.gaussian:
        return experiment.none
    return experiment.find("neft_gaussian", alpha=row.arguments["alpha"], match_rms=True)


def differences(claim: Claim, row: Row, experiment: Experiment) -> dict[When, Difference]:
    """Return the paired difference at every measured point."""
    other = compared(claim, row, experiment)
    points: list[When] = ["end"] if claim.end_only else [*POINTS]
    paired = {} if other is None else {point: difference(row, other, claim.name, point) for point in points}
    return {point: each for point, each in paired.items() if each.mean is not None}


def judged(claim: Claim, experiment: Experiment) -> Row | None:
    """Return the row to judge, or None if it or its baseline was not run."""
    rows = [experiment.find("neft_uniform", alpha=alpha) for alpha in (ALPHA, PAPERS)]
    found = (row for row in rows if row is not None and compared(claim, row, experiment) is not None)
    return next(found, None)


def failures(claim: Claim, experiment: Experiment) -> list[str]:
    """Say of which of the compared rows how many runs failed."""
    row = judged(claim, experiment)
    rows = [row, compared(claim, row, experiment)] if row is not None else []
    return [f"`{row_name(each)}`{each.failures}" for each in rows if each is not None and each.failed]


def judge(claim: Claim, experiment: Experiment) -> Judgement:
    """Return the outcome of a claim in an experiment, by the rule of the page."""
    row = judged(claim, experiment)
    if row is None:
        uniform = f"of neft_uniform at alpha {ALPHA:g} or {PAPERS:g}"
        missing = "of Gaussian noise of equal energy" if claim.gaussian else uniform
        return Judgement(MISSING, f"no run {missing}")
    paired = differences(claim, row, experiment)
    if not paired:
        return Judgement(UNKNOWN, f"{metric(claim.name).label} was not measured")
    pairs = min(len(each.values) for each in paired.values())
    if pairs < SEEDS:
        return Judgement(UNKNOWN, f"{pairs} pairs of seeds, {SEEDS} are needed")
    if missing := claim.needs(experiment):
        return Judgement(UNKNOWN, missing, paired)
    verdicts = dict(zip(paired, verdicts_on(claim, [*paired.values()], experiment), strict=True))
    digits = metric(claim.name).digits
    alpha = row.arguments["alpha"]
    said = [f"at alpha {alpha:g}"] if alpha != ALPHA else []
    why = "; ".join([*said, *(f"{POINTS[point]} {each.text(digits)}" for point, each in verdicts.items())])
    why += "" if "best" in paired else f"; {claim.end_only or 'measured at the end only'}"
    equal = any(each.word == SAME for each in verdicts.values())
    hidden = claim.hidden(experiment) if equal and claim.side != "same" else ""
    why += f"; {hidden}" if hidden else ""
    holds = [None if hidden and each.word == SAME else agrees(claim, each) for each in verdicts.values()]
    status = NO if False in holds else UNKNOWN if None in holds else YES
    return Judgement(status, why, paired, verdicts, alpha)


def verdicts_on(claim: Claim, paired: list[Difference], experiment: Experiment) -> list[Verdict]:
    """Return the verdicts on a claim's differences, which form one question."""
    return judge_question(one_test(*paired), experiment.margin(claim.name))


def agrees(claim: Claim, verdict: Verdict) -> bool | None:
    """Return whether a verdict agrees with the paper, or None if it is undecided or no test."""
    wanted = {"up": "higher", "down": "lower"}.get(claim.side)
    if verdict.word in ("lower", "higher"):
        return verdict.word == wanted
    return claim.side == "same" if verdict.word == SAME else None


def detail(claim: Claim, experiment: Experiment) -> str:
    """Return outcome and intervals of a claim in an experiment, for every alpha that was run."""
    judgement, points = judge(claim, experiment), [p for p in POINTS if (claim.name, p) in experiment.columns]
    points = points[:1] if claim.end_only else points
    lines, digits = [], metric(claim.name).digits
    for row in experiment.rows:
        if row.entry != "neft_uniform":
            continue
        other, paired = compared(claim, row, experiment), differences(claim, row, experiment)
        cells = [_interval(paired.get(point), digits) for point in points]
        if other is not None and paired:
            lines.append((f"`{row_name(row)}`", f"`{row_name(other)}`", *cells))
    why = "; ".join([judgement.why, *failures(claim, experiment), *stands_on(claim, experiment, judgement)])
    head = f"**{title(experiment)}**: {_marked(judgement.status)} ({why})."
    return "\n\n".join(
        [head, table(("row", "minus", *(POINTS[point] for point in points)), lines)] if lines else [head]
    )


def _interval(paired: Difference | None, digits: int) -> str:
    if paired is None or paired.mean is None:
        return "-"
    text = interval_text(paired, digits)
    return text if paired.low is None else unbroken(text)


def stands_on(claim: Claim, experiment: Experiment, judgement: Judgement) -> list[str]:
    """Return the sample sizes behind an outcome: test records or answers, and the effect that would be seen."""
    if not judgement.differences:
        return []
    if claim.name.endswith("_loss"):
        count = count_test_records(experiment) if claim.name == "test_loss" else None
        return [] if count is None else [f"{count} test records"]
    verdict, digits = judgement.verdicts.get("end"), metric(claim.name).digits
    seen = [] if verdict is None or verdict.visible is None or verdict.word == "undecided" else [verdict.visible]
    texts = [f"\N{PLUS-MINUS SIGN}{each:.{digits}f} would have been seen" for each in seen]
    return [*filter(None, [answers(experiment)]), *texts]
