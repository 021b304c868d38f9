"""What to expect of a choice: the most similar run of this repository, and what is published."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from neft_zoo.compare.experiment import POINTS, STEPS, Experiment, Row
from neft_zoo.compare.formats import interval_text
from neft_zoo.compare.metrics import metric
from neft_zoo.compare.reference import Reference, find_reference

from .tables import judged_text
from .words import is_real, regime, row_name, setting

SEEDS = 3
# From the tables of docs/paper.md.
PUBLISHED = {
    ("neft_uniform", "full"): "LLaMA-2-7B on Alpaca, three epochs: 29.8 to 64.7 % wins with alpha 5; "
    "LLaMA-1 with alpha 10, on the leaderboard with length controlled: 26.3 to 31.6 %",
    ("neft_uniform", "lora"): "with adapters only QLoRA was published: 26.7 to 31.4 % wins on LLaMA-2-7B with alpha 5",
    ("neft_uniform", "qlora"): "LLaMA-2-7B on Alpaca, one epoch: 26.7 to 31.4 % wins with alpha 5",
    ("masked_thought", ""): "LLaMA-2-7B on GSM8K: 41.6 right without, 47.1 with it, 41.3 with NEFTune at alpha 5",
}


def expected(noise: str, method: str, packing: str, goal: str, experiments: Sequence[Experiment]) -> str:
    """Return as HTML the most similar measured result to a case, and the published one."""
    parts = [measured(noise, method, packing, goal, experiments)]
    published = PUBLISHED.get((noise, method)) or PUBLISHED.get((noise, ""))
    if published:
        parts.append(Markup('Published: {} (<a href="paper.html">the tables</a>). ').format(published))
    return str(Markup(" ").join(parts)).strip()


def measured(noise: str, method: str, packing: str, goal: str, experiments: Sequence[Experiment]) -> Markup:
    """Return a strategy's result in the run that is most similar to a case."""
    found = nearest(noise if noise != "none" else "neft_uniform", method, packing, goal, experiments)
    if found is None:
        return Markup("Not run here for this case.")
    experiment, row = found
    text = Markup("Measured here, <code>{}</code> on {} ({}). Test loss minus plain training: {}.")
    made = text.format(row_name(row), regime(experiment), setting(experiment, [row]), said(row))
    made += against_best(row, find_reference(experiment))
    return made + Markup(' <a href="compare.html#experiment={}">All its rows</a>.').format(experiment.key)


def said(row: Row) -> str:
    """Return a row's differences in test loss at both points, with their verdicts."""
    texts = [
        f"{words} {judged_text(row.cells['test_loss', when])}"
        for when, words in POINTS.items()
        if ("test_loss", when) in row.cells
    ]
    return "; ".join(texts) + row.failures


def against_best(row: Row, reference: Reference | None) -> str:
    """Return a row's difference from the best plain run of any length, "" if there is one length only."""
    found = next((each for each in reference.rows if each[0] is row), None) if reference else None
    if reference is None or found is None:
        return ""
    _, paired, verdict = found
    text = interval_text(paired, metric("test_loss").digits)
    return f" Against the best plain run of any length ({row_name(reference.row)}): {text}, {verdict.text()}."


def nearest(
    noise: str, method: str, packing: str, goal: str, experiments: Sequence[Experiment]
) -> tuple[Experiment, Row] | None:
    """Return the most similar experiment to a case that has the strategy at enough seeds, and its row."""

    def rank(each: Experiment) -> tuple[bool, ...]:
        config = each.config
        return (
            ("gsm8k" in str(config.get("dataset_name"))) == (goal == "reasoning"),
            bool(config.get("use_peft")) == (method != "full"),
            bool(config.get("packing")) == (packing == "yes"),
            is_real(each),
            config.get("eval_strategy") != "steps",
        )

    for experiment in sorted((each for each in experiments if each.budget == STEPS), key=rank, reverse=True):
        row = experiment.find(noise) or next((each for each in experiment.rows if each.entry == noise), None)
        cell = row.cells.get(("test_loss", "end")) if row is not None else None
        if row is not None and cell is not None and cell.seeds >= SEEDS:
            return experiment, row
    return None
