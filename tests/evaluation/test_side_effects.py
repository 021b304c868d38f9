"""All side effects from the command line, and their intervals."""

import json
import math

import numpy as np
import pytest
from small_subject import MODEL

from neft_zoo.cli.main import main
from neft_zoo.evaluation.effect_rows import effect_numbers
from neft_zoo.evaluation.intervals import cluster_interval, mean_interval, wilson
from neft_zoo.evaluation.results import EvaluationReport
from neft_zoo.evaluation.shipped import shipped_records


def test_side_effects_from_the_command_line(tmp_path, capsys):
    argv = ["evaluate", str(MODEL), "--config", "quickstart", "--output", str(tmp_path / "out"), "--records", "4"]
    argv += ["--parts", "forgetting,quantization,prompts,safety", "--unrelated_records", "3", "--safety_prompts", "10"]
    assert main([*argv, "--no_plots"]) == 0
    out = capsys.readouterr().out
    path = tmp_path / "out" / "evaluation.json"
    report = EvaluationReport.from_dict(json.loads(path.read_text()))
    assert report.forgetting.general.change == 0, "it is the model that the recipe starts from"
    assert report.forgetting.general.records == report.forgetting.gsm8k.records == 3
    assert report.safety.safe.prompts + report.safety.unsafe.prompts == 10
    for of_label in (report.safety.safe, report.safety.unsafe):
        assert of_label.refusal_probability is of_label.refusal_probability_interval is None
        assert 0 < of_label.covered < 0.1, "a model that has seen no conversation does not answer with an opening"
        assert of_label.refused_interval[0] <= of_label.refused <= of_label.refused_interval[1]
    assert report.losses is report.text is report.instructions is None
    assert "loss, general text (less before)" in out and "(+0.000)" in out and "refused of " in out
    asked = [record["prompt"] for record in shipped_records("xstest")]
    assert not any(prompt in path.read_text() for prompt in asked), "no prompt and no answer is stored"
    numbers = dict(effect_numbers(report))
    assert {"general_text_loss", "gsm8k_answers_loss", "rtn4_loss", "rtn3_change", "unsafe_refused"} <= numbers.keys()
    assert all(value is None or math.isfinite(value) for value in numbers.values())


def test_intervals_hold_the_mean_about_as_often_as_they_say():
    generator, hits = np.random.default_rng(0), np.zeros(3)
    for _ in range(300):
        values = generator.beta(0.5, 1.5, 60)  # as probabilities of refusals are spread
        clusters = [generator.random(3) < p for p in generator.beta(2, 2, 60)]
        intervals = mean_interval(values), wilson((values < 0.25).mean(), 60), cluster_interval(clusters)
        truths = 0.25, 0.6089978, 0.5  # the median share of a Beta(0.5, 1.5) below 0.25, from its distribution
        hits += [low <= truth <= high for (low, high), truth in zip(intervals, truths, strict=True)]
    assert (hits >= 0.9 * 300).all() and (hits <= 0.99 * 300).all(), hits
    assert mean_interval([1.0] * 20)[0] < 0.9, "certain only as far as 20 values are"


def test_no_interval_is_narrower_than_its_values_can_tell():
    low, high = cluster_interval([[True, True]] * 40)
    assert high == 1.0 and 0.88 < low < 0.95, "all followed: a bootstrap would say [1, 1]"
    assert cluster_interval([[True, True]] * 40) == pytest.approx(wilson(1.0, 40)), "40 prompts, not 80 instructions"
    low, high = mean_interval([0.5, 0.50001])
    assert high - low > 0.5, "two values that happen to be near each other"
    assert mean_interval([0.5])[0] < 0.2 and cluster_interval([[True, False]])[1] > 0.8
