"""Strategies grouped by purpose, and the rows that represent an idea in a short table."""

from __future__ import annotations

from dataclasses import dataclass

from neft_zoo import registry
from neft_zoo.compare.experiment import Experiment, Row

from .words import is_real

ENOUGH_SEEDS, ENOUGH_ROWS = 3, 4  # minimum of an experiment that the site may lead with
SHOWN = 10  # number of rows that are easy to read
# One row per idea, in their order in the short table.
IDEAS = (
    "neft_uniform",
    "embedding_dropout",
    "symnoise",
    "neft_gaussian",
    "masked_thought",
    "token_relative",
    "r_drop",
    "freelb",
    "hype",
    "flat_lora",
)


@dataclass(frozen=True)
class Want:
    """A group of strategies.

    Attributes:
        title: the purpose.
        text: a description of the strategies.
    """

    title: str
    text: str


PLAIN = Want("Overfit less at the cost of plain training", "Noise or dropout on the embeddings, one pass per step.")
SHAPE = Want(
    "Change the distribution, place or schedule of NEFTune's noise",
    "The same size with another distribution, on some tokens only, or changing over training; one pass per step.",
)
TOKENS = Want(
    "Learn more from the question", "Tokens of prompt or answer are hidden, mixed or not graded; one pass per step."
)
TWICE = Want("Spend more compute on stable predictions", "Two or more passes per step, which should agree.")
WORST = Want("Withstand the worst small perturbation", "The noise is found by ascent: two or more passes per step.")
WEIGHTS = Want("Put the noise on weights", "For adapters, and for weights that will change again later.")
WANTS = (PLAIN, SHAPE, TOKENS, TWICE, WORST, WEIGHTS)
FIRST = ("none", "neft_uniform", "embedding_dropout", "token_relative", "hype")
MIXED = ("embed_mix",)
BY_FAMILY = {"consistency": TWICE, "adversarial": WORST, "weights": WEIGHTS}


def want(name: str) -> Want:
    """Return the group of a strategy."""
    strategy = registry.make(name)
    if name in FIRST:
        return PLAIN
    if strategy.family in BY_FAMILY:
        return BY_FAMILY[strategy.family]
    return TOKENS if strategy.site in ("token ids", "labels") or name in MIXED else SHAPE


def grouped() -> dict[Want, list[str]]:
    """Return the built-in strategies by group, with those to try first in front."""
    order = {name: place for place, name in enumerate((*FIRST, *IDEAS))}
    groups: dict[Want, list[str]] = {each: [] for each in WANTS}
    for name in sorted(registry.builtin_names(), key=lambda name: (order.get(name, len(order)), name)):
        groups[want(name)].append(name)
    return {each: names for each, names in groups.items() if names}


def short(experiment: Experiment) -> list[Row]:
    """Return the rows that represent an idea each: plain training of all lengths, then strategies."""
    plain = [row for row in experiment.rows if row is experiment.none or row.is_other_length]
    ideas = [row for name in IDEAS if (row := experiment.find(name)) is not None]
    controls = [row for row in experiment.rows if row.question == "controls"]
    others = [row for row in experiment.rows if not any(row is each for each in (*plain, *ideas, *controls))]
    return [*plain, *ideas, *controls, *others][:SHOWN]


def leading(experiments: list[Experiment]) -> Experiment | None:
    """Return the experiment to lead with: one with a real model and enough rows, else the one with most rows."""

    def rank(each: Experiment) -> tuple[bool, int]:
        cells = [row.cells.get(("test_loss", "end")) for row in each.rows]
        measured = sum(cell is not None and cell.seeds >= ENOUGH_SEEDS for cell in cells)
        return is_real(each) and measured >= ENOUGH_ROWS, measured

    return max(experiments, key=rank, default=None)
