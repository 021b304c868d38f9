"""A sweep of noise strength on a model after its first training steps."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

import neft_zoo
from neft_zoo.config import recipe
from neft_zoo.config.measuring import EVALUATION, NOISE, OUTPUT, PROGRESS
from neft_zoo.config.options import load_options
from neft_zoo.config.trainer_arguments import trainer_arguments
from neft_zoo.errors import NoiseError, as_sentence
from neft_zoo.evaluation.losses import noise_session, score, summary
from neft_zoo.evaluation.results import LossSummary
from neft_zoo.evaluation.subject import Row, Subject, prepare
from neft_zoo.evaluation.sweep_report import SweepPoint, SweepReport, advice, at_excess
from neft_zoo.noise.additive import AtLayers, Noise, TokenEdit
from neft_zoo.noise.batch import Batch, step_key
from neft_zoo.noise.data_dependent import Setup, Unprepared
from neft_zoo.noise.schedules import Scalar, check_count
from neft_zoo.passes.anatomy import find_embedding, find_table
from neft_zoo.passes.preparation import prepare as prepare_noise
from neft_zoo.registry.entries import entry, make
from neft_zoo.registry.strategy import Strategy
from neft_zoo.training.token_counts import count_tokens
from neft_zoo.training.trainers import SFTTrainer

# Increases of the loss by noise, relative to the clean loss: where it starts to matter, a first choice, where it
# harms.
SHARES = {"low": 0.01, "pick": 0.05, "high": 0.2}
LOUDEST, FAINTEST = -10.0, 30.0  # signal-to-noise ratios at the ends of the sweep, in decibels


def find_alpha(config: str, noise: Any = None, steps: int = 16, records: int = 96, points: int = 13) -> SweepReport:
    """Sweep the noise strength on a model after a few training steps without noise, and return the report.

    Args:
        config: a recipe's name or file.
        noise: a strategy as for `registry.make`; None for the recipe's own, or `neft_uniform` if it has none.
        steps: optimizer steps of the recipe before the sweep; 0 for the untrained model.
        records: number of training records to measure, evenly spread over the data.
        points: number of strengths, evenly spaced in decibels of the signal-to-noise ratio.

    Raises:
        NoiseError: if the recipe or an argument is invalid, or the strategy has no strength to sweep.
    """
    for name, value, least in (("steps", steps, 0), ("records", records, 1), ("points", points, 3)):
        check_count(name, value, least)
    own = recipe.load(config).values.get("noise")
    strategy = make(noise if noise is not None else "neft_uniform" if own in (None, "none") else own)
    argument, started, worked = strength_of(strategy), time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory(prefix="neft-zoo-") as folder:
        off = {**OUTPUT, **PROGRESS, **EVALUATION, **NOISE, "logging_strategy": "no"}
        options = load_options(config, **off, output_dir=folder)
        given = trainer_arguments(options)
        data = given["train_dataset"]
        if not hasattr(data, "select"):
            raise NoiseError("dataset_streaming must be false for neft-zoo alpha, got true.")
        trainer = _trained(given, options.training.seed, steps)
        taken = min(records, len(data))
        chosen = [data[index * len(data) // taken] for index in range(taken)]
        model: Any = trainer.model
        tokenizer: Any = trainer.processing_class
        subject = prepare(model, tokenizer, options.training, {"train": chosen})
        clean, measured = sweep(subject, subject.rows["train"], strategy, argument, points, trainer.train_dataset)
    low, pick, high = (at_excess(measured, share * clean.loss) for share in SHARES.values())
    report = SweepReport(
        recipe=config,
        noise=strategy.to_dict(),
        argument=argument,
        steps=trainer.state.global_step,
        records=clean.records,
        tokens=clean.tokens,
        clean_loss=clean.loss,
        low=low,
        pick=pick,
        high=high,
        shares=SHARES,
        points=measured,
        seconds=round(time.perf_counter() - started, 1),
        cpu_s=round(time.process_time() - worked, 1),
        neft_zoo=neft_zoo.__version__,
    )
    return replace(report, advice=advice(report))


def strength_of(strategy: Strategy) -> str:
    """Return the argument that the noise is proportional to: `alpha` for most strategies, `rho` or `eps` for others.

    It is found by testing which argument, when doubled, doubles the noise.

    Raises:
        NoiseError: if there is none, or if the noise is not additive noise on the embeddings.
    """
    noise = strategy.noise
    if noise is not None and not isinstance(noise, TokenEdit | AtLayers) and strategy.family != "adversarial":
        hints = entry(strategy.name).hints()
        for name in strategy.arguments:
            if hints[name] in (Scalar, float) and _proportional(strategy, name):
                return name
    raise NoiseError(
        "noise must be drawn, added to the embeddings and proportional to one of its arguments, "
        f"got {strategy.name!r}; neft-zoo tune searches what no sweep can find."
    )


def _trained(given: dict[str, Any], seed: int, steps: int) -> SFTTrainer:
    """Return the trainer of a recipe after a few optimizer steps, or untrained if `steps` is 0."""
    set_seed(seed)
    with as_sentence("the recipe must run with TRL"):
        trainer = SFTTrainer(**given)
    if steps:
        trainer.add_callback(_StopAfter(steps))
        trainer.train()
    return trainer


def _proportional(strategy: Strategy, argument: str) -> bool:
    draw = torch.Generator().manual_seed(0)
    ids = torch.arange(8)[None]
    batch = Batch.from_inputs({"input_ids": ids, "labels": ids.where(ids > 3, -100)}, key=step_key(0, 0, 0))
    embeds, table = torch.randn(1, 8, 256, generator=draw), torch.randn(16, 256, generator=draw)
    deltas = []
    for value in (0.25, 0.5):
        try:
            noise: Any = with_strength(strategy, argument, value).noise
        except NoiseError:
            return False
        if isinstance(noise, Unprepared):
            noise = noise.prepare(Setup(table, lambda: torch.ones(16, dtype=torch.long)))
        deltas.append(noise(embeds, batch))
    return bool(deltas[0].any()) and torch.allclose(2 * deltas[0], deltas[1], rtol=1e-4)


def with_strength(strategy: Strategy, argument: str, value: float) -> Strategy:
    """Return the strategy with another strength."""
    return make({**strategy.to_dict(), argument: value})


def sweep(
    subject: Subject, rows: Sequence[Row], strategy: Strategy, argument: str, points: int, training: Any
) -> tuple[LossSummary, list[SweepPoint]]:
    """Return the losses without noise and at each strength; all strengths scale the same draw.

    Args:
        subject: the model.
        rows: tokenized records to measure.
        strategy: the strategy whose noise is added.
        argument: name of its strength.
        points: number of strengths.
        training: tokenized training data, for noise that depends on token counts.

    Raises:
        NoiseError: if the loss without noise is not finite, or 0.
    """
    table = find_table(subject.model)

    def noise_at(value: float) -> Noise | TokenEdit | None:
        noise = with_strength(strategy, argument, value).noise
        return prepare_noise(noise, subject.model, lambda: count_tokens(training, len(table)))

    unit = snr_db(subject, rows, noise_at(1.0))
    clean, measured = summary(score(subject, rows, what="clean")), []
    if not 0 < clean.loss < math.inf:
        raise NoiseError(f"the loss without noise must be finite and above 0, got {clean.loss}.")
    for index in range(points):
        ratio = FAINTEST + (LOUDEST - FAINTEST) * index / (points - 1)
        value = 10 ** ((unit - ratio) / 20)
        noisy = summary(score(subject, rows, noise_at(value), what=f"{argument} {value:.3g}")).loss
        measured.append(SweepPoint(value, ratio, noisy, noisy - clean.loss))
    return clean, measured


@torch.no_grad()
def snr_db(subject: Subject, rows: Sequence[Row], noise: Any) -> float:
    """Return 20 log10(embedding rms / noise rms), in decibels, over the real tokens of all rows."""
    embedding, signal, added = find_embedding(subject.model), 0.0, 0.0
    session = noise_session(subject, None)
    for _, inputs in subject.batches(rows):
        batch = session.batch(inputs, step_key(0, 0, 0))
        embeds = embedding(batch.input_ids).float()
        signal += embeds[batch.real].double().square().sum().item()
        added += noise(embeds, batch)[batch.real].double().square().sum().item()
    if not (signal and added):
        raise NoiseError("the model's embeddings and the noise must not be 0 on every record.")
    return 10 * math.log10(signal / added)


class _StopAfter(TrainerCallback):
    """Ends training early, with the learning rates of the recipe's full schedule."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        control.should_training_stop |= state.global_step >= self.steps
