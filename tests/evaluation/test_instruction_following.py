"""IFEval with the checkers of lm-evaluation-harness."""

import json
import re
import sys
from dataclasses import replace

import pytest
from small_subject import MODEL

from neft_zoo import NoiseError
from neft_zoo.cli.main import main
from neft_zoo.evaluation.effect_results import InstructionFollowing
from neft_zoo.evaluation.instruction_following import instruction_following, load_benchmark, subset_text
from neft_zoo.evaluation.results import EvaluationReport


def following(answers):
    """Return IFEval's accuracies of given answers to two prompts."""
    records = [
        {
            "key": 1,
            "prompt": "Say it without commas.",
            "instruction_id_list": ["punctuation:no_comma"],
            "kwargs": [{}],
        },
        {
            "key": 2,
            "prompt": "No commas, and a title.",
            "instruction_id_list": ["punctuation:no_comma", "detectable_format:title"],
            "kwargs": [{}, {}],
        },
    ]
    benchmark = load_benchmark()
    return [benchmark.check(record, [answer]) for record, answer in zip(records, answers, strict=True)]


def test_checkers_are_the_harness_own_offline():
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed (neft-zoo[eval])")
    one, two = following(["no commas here", "<<A title>>\nno, commas"])
    assert one["prompt_level_strict_acc"] is True and one["inst_level_strict_acc"] == [True]
    assert two["prompt_level_strict_acc"] is False and two["inst_level_strict_acc"] == [False, True]
    benchmark = load_benchmark()
    kinds = {kind for record in benchmark.records for kind in record["instruction_id_list"]}
    assert len(benchmark.records) + benchmark.left_out == 541 and bool(benchmark.left_out) == bool(benchmark.skipped)
    told = subset_text(100, benchmark)
    assert told.startswith(f"100 of {541 - benchmark.left_out} prompts, evenly spread")
    assert ("more left out, as nltk's punkt_tab is missing" in told) == bool(benchmark.left_out)
    assert subset_text(541, replace(benchmark, records=[{}] * 541, left_out=0)) == "541 of 541 prompts"
    assert not kinds & benchmark.skipped.keys(), "what cannot be checked is left out and named"
    assert benchmark.check(benchmark.records[0], ["a"])["prompt_level_loose_acc"] in (True, False)


def test_instruction_following_of_a_model(subject):
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed (neft-zoo[eval])")
    found = instruction_following(subject, load_benchmark(), prompts=6, max_new_tokens=24)
    assert found.prompts == 6 <= found.instructions and found.max_new_tokens == 24 and "6 of " in found.subset
    for rate in (found.prompt_strict, found.prompt_loose, found.instruction_strict, found.instruction_loose):
        assert 0 <= rate.interval[0] <= rate.rate <= rate.interval[1] <= 1
    assert found.prompt_strict.rate <= found.prompt_loose.rate
    assert InstructionFollowing.from_dict(found.to_dict()) == found


def test_ifeval_as_a_task_is_the_shipped_file_with_intervals(tmp_path, capsys):
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed (neft-zoo[eval])")
    argv = ["evaluate", str(MODEL), "--config", "quickstart", "--output", str(tmp_path / "out"), "--records", "4"]
    argv += ["--parts", "", "--tasks", "ifeval", "--instruction_prompts", "5", "--instruction_tokens", "8"]
    assert main([*argv, "--no_plots"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"IFEval +- +5 of \d+ prompts, evenly spread", out)
    for level in ("prompts, strict", "prompts, loose", "instructions, strict", "instructions, loose"):
        assert re.search(rf"IFEval {level} .*\d\.\d{{3}} \[0\.\d{{3}}, [01]\.\d{{3}}\]", out)
    report = EvaluationReport.from_dict(json.loads((tmp_path / "out" / "evaluation.json").read_text()))
    assert report.tasks is None and report.instructions.prompts == 5 and report.losses is None


def test_instruction_following_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "langdetect", None)
    with pytest.raises(NoiseError, match=r"following instructions needs langdetect: pip install 'neft-zoo\[eval\]'"):
        load_benchmark()
