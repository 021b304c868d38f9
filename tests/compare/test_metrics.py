"""The table of metrics and what is measured name the same."""

import re
from dataclasses import fields

import pytest
from datasets import load_dataset
from small_models import QUICKSTART

from neft_zoo.compare.measured_trainer import MeasuredTrainer, measured_sets
from neft_zoo.compare.measures import final, measure
from neft_zoo.compare.metrics import METRICS, ROWS
from neft_zoo.evaluation.effect_results import InstructionFollowing, Rate

# What an option sets is in the name: `alphas`, `rates` and templates of robustness.
OF_OPTIONS = re.compile(r"(noise|replaced_tokens)_[\d.]+_\w+|template_\w+_loss")
PARTS = "losses memorization text robustness forgetting quantization prompts safety".split()
SIZES = dict(records=4, answers=2, max_new_tokens=6, min_new_tokens=3, words=2, rates=[0.5], alphas=[5])
SIZES |= dict(unrelated_records=2, safety_prompts=4)


@pytest.fixture(scope="module")
def measured(tmp_path_factory, tokenizer):
    """Return the names of all that a run's history has, and of all that an evaluation of it has."""
    from short_run import short_run
    from transformers import AutoModelForCausalLM

    from neft_zoo import NoiseSFTConfig

    data = load_dataset(str(QUICKSTART / "data"))
    given = {"train_dataset": data["train"].select(range(4)), "eval_dataset": data["test"].select(range(4))}
    given |= {"processing_class": tokenizer}
    given["eval_dataset"] = measured_sets(given)
    args = NoiseSFTConfig(**short_run(tmp_path_factory.mktemp("run")))
    model = AutoModelForCausalLM.from_pretrained(QUICKSTART / "model")
    trainer = MeasuredTrainer(model, args=args, record={"history": []}, **given)
    return set(measure(trainer)), set(final(trainer, given, {"parts": PARTS, **SIZES}, None))


def test_every_row_is_measured(measured):
    history, evaluation = measured
    # lm-evaluation-harness, which measures these, need not be installed.
    evaluation |= {f"ifeval_{each.name}" for each in fields(InstructionFollowing) if each.type == Rate.__name__}
    given = {row.name for row in ROWS if row.derive is None and row.source in ("history", "derived")}
    assert given == history
    assert {row.name for row in ROWS if row.source == "evaluation"} <= evaluation


def test_everything_that_is_measured_has_a_row(measured):
    history, evaluation = measured
    without = {name for name in history | evaluation if name not in METRICS and not OF_OPTIONS.fullmatch(name)}
    # Their difference to the loss of clean weights or prompts has one.
    assert without == {name.replace("_change", "_loss") for name in METRICS if name.endswith("_change")}
