"""The NEFTune paper's qualitative findings, as claims that results are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from neft_zoo.compare.experiment import Experiment

Side = Literal["up", "down", "same"]
CUT = 0.05  # share of truncated answers above which their mean length says little


@dataclass(frozen=True)
class Claim:
    """A finding of the paper.

    Attributes:
        title: in a few words.
        source: what the paper shows, and where.
        name: the metric.
        side: the direction of the difference.
        end_only: why only the end is compared, if the best checkpoint was measured too.
        gaussian: whether to compare with Gaussian noise of equal energy instead of `none`.
        needs: returns why the data cannot decide the claim, or "".
        hidden: returns why rows that are practically the same may not be, or "".
    """

    title: str
    source: str
    name: str
    side: Side
    end_only: str = ""
    gaussian: bool = False
    needs: Callable[[Experiment], str] = lambda experiment: ""
    hidden: Callable[[Experiment], str] = lambda experiment: ""


def memorizes(experiment: Experiment) -> str:
    """Return why memorization cannot decrease, if plain training has memorized nothing, or ""."""
    ours, floor = (experiment.rows[0].cells.get((name, "end")) for name in ("train_rouge_l", "test_rouge_l"))
    if ours is None or floor is None or ours.mean > floor.mean:
        return ""
    return "`none` itself overlaps with training answers no more than with test answers"


def cut(experiment: Experiment) -> str:
    """Return why equal lengths may hide longer answers, if too many are truncated, or ""."""
    cell = experiment.none.cells.get(("test_unended", "end"))
    if cell is None or cell.mean is None or cell.mean <= CUT:
        return ""
    return f"{cell.mean:.0%} of `none`'s answers are truncated, so equal lengths do not contradict longer answers"


CLAIMS = (
    Claim(
        "Train loss goes up",
        "Fig. 4: training loss, noise off, about 0.6 without and 1.0 with",
        "train_loss",
        "up",
        end_only="best checkpoints lie at different epochs",
    ),
    Claim("Held-out loss goes down", "Fig. 4: loss on another data set, slightly lower with", "test_loss", "down"),
    Claim(
        "Answers repeat training answers less (ROUGE-L)",
        "Fig. 5: the peak of ROUGE-L at 0.9 to 1.0 vanishes",
        "train_rouge_l",
        "down",
        needs=memorizes,
    ),
    Claim(
        "Answers repeat training answers less (BLEU)",
        "Fig. 5: the same of BLEU",
        "train_bleu",
        "down",
        needs=memorizes,
    ),
    Claim("Outputs get longer", "Table 4: 375 to 1,062 characters on Alpaca", "test_words", "up", hidden=cut),
    Claim(
        "Repetition stays the same",
        "Table 4: at most 0.5 points of 2-gram repetition",
        "test_repetition_2",
        "same",
    ),
    Claim(
        "Uniform noise beats Gaussian noise of equal energy",
        "Table 6: 62.6 against 60.9 % wins on Alpaca, at equal alpha, hence at a third of the energy",
        "test_loss",
        "down",
        gaussian=True,
    ),
)
