"""`neft-zoo evaluate` as a user meets it, and what it refuses."""

import importlib.util
import json
import math
from dataclasses import replace

import pytest

from neft_zoo import NoiseError
from neft_zoo.cli.main import main
from neft_zoo.config import recipe
from neft_zoo.evaluation import Options, evaluate
from neft_zoo.evaluation.answer_results import AnswerText, Diversity, Lengths, Memorization
from neft_zoo.evaluation.intervals import wilson
from neft_zoo.evaluation.plots import draw
from neft_zoo.evaluation.report import rows, save
from neft_zoo.evaluation.results import (
    BestLosses,
    Curves,
    EvaluationReport,
    Losses,
    LossSummary,
    NoisePoint,
    Robustness,
    SplitLosses,
)
from neft_zoo.evaluation.tasks import run_tasks

MODEL = recipe.folder() / "quickstart" / "model"
SMALL = "--records 4 --answers 2 --max_new_tokens 6 --min_new_tokens 3".split()


@pytest.fixture
def cli(capsys):
    def run(*argv):
        status = main([str(argument) for argument in argv])
        out = capsys.readouterr()
        return status, out.out, out.err

    return run


def test_evaluates_the_quickstart_model(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("neft_zoo.evaluation.progress.SECONDS", 0.0)
    batch = ["--records", "40", "--answers", "40", *SMALL[4:]]
    status, out, error = cli("evaluate", MODEL, "--config", "quickstart", "--output", tmp_path / "out", *batch)
    assert status == 0, error
    assert "neft-zoo: test loss: 1 of 2\n" in error and "neft-zoo: answers: 32 of 40\n" in error
    names = ["evaluation.json", "losses.png", "rouge_l.png", "replaced_tokens.png", "noise.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    assert all(str(tmp_path / "out" / name) in out for name in names) and "log-diversity" in out
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    end = report["losses"]["end"]
    assert 3 < end["test"]["loss"] < 7 and report["losses"]["best"] is None
    assert len(end["train"]["record_losses"]) == 40
    curves = report["robustness"]["curves"]
    assert curves["noise"][0]["loss"] == pytest.approx(end["test"]["loss"], abs=1e-6)
    assert curves["replaced_tokens"][0]["loss"] == pytest.approx(end["test"]["loss"], abs=1e-6)
    assert curves["noise"][-1]["loss"] > end["test"]["loss"]
    assert report["robustness"]["templates"].keys() == {"headed"}
    assert report["robustness"]["lengths"].keys() == {"plain", "asked_for_longer", "end_blocked"}
    assert report["text"]["test"]["lengths"]["tokens"] <= 6
    assert report["text"]["test"]["diversity"]["log_diversity"] is None, "missing is no number"
    assert report["robustness"]["flips_from"] == next(each["alpha"] for each in curves["noise"] if each["flipped"])
    assert report["memorization"]["train"]["exact"] == 0 and report["noise"] is None and report["tasks"] is None


def split_losses(**changed):
    numbers = dict(accuracy=0.5, bins=15, records=2, tokens=8, record_losses=[1.0, 3.0])
    summary = LossSummary(loss=2.0, perplexity=7.4, calibration_error=0.1, **numbers)
    return dict(train=summary, test=summary, **changed)


def answer_text(characters):
    repetition = {str(n): 0.1 * n for n in range(1, 5)}
    diversity = Diversity(at_words=50, used=4, too_short=0, repetition=repetition, log_diversity=2.5, clip=20.0)
    return AnswerText(4, Lengths(characters=characters, words=5.5, tokens=8.0), unended=0.25, diversity=diversity)


def made_up(flips_from=25.0):
    noise = [NoisePoint(a, 2.0 + a, f, f) for a, f in ((0.0, 0.0), (15.0, 0.0), (25.0, 0.1))]
    lengths = dict(plain=answer_text(31.0), asked_for_longer=answer_text(62.0), end_blocked=answer_text(93.0))
    curves = Curves(noise=noise)
    best = BestLosses(checkpoint="checkpoint-40", step=40, logged_loss=2.0, **split_losses())
    return EvaluationReport(
        model="m",
        noise=None,
        neft_zoo="0",
        options=Options(),
        losses=Losses(SplitLosses(**split_losses()), best),
        text=dict(train=answer_text(31.0), test=answer_text(31.0)),
        robustness=Robustness(curves, "neft_uniform", flips_from, {"headed": 2.5}, lengths),
    )


def test_the_table_and_the_plots_show_what_was_measured(tmp_path):
    report = made_up()
    shown = {label: (train, test) for label, train, test in rows(report)}
    assert shown["loss at step 40, the best"] == ("2.000", "2.000") and shown["ROUGE-L"] == ("-", "-")
    assert shown["answer, characters"][1] == "31.000"
    low, high = wilson(0.25, 4)
    assert shown["answers that never end"][0] == f"0.250 [{low:.3f}, {high:.3f}] of 4"
    assert [shown[f"{n}-gram repetition"][0] for n in range(1, 5)] == ["0.100", "0.200", "0.300", "0.400"]
    assert shown["log-diversity of 50 words, at most 20"] == ("2.500", "2.500")
    assert shown["noise flips tokens from alpha"] == ("-", "25") and shown["loss, noise 25"] == ("-", "27.000")
    assert shown["answer, characters, asked for longer"] == ("-", "62.000")
    assert shown["answer, characters, end blocked"] == ("-", "93.000")
    assert ("noise flips tokens from alpha", "-", "-") in rows(made_up(flips_from=None))
    drawn = [path.name for path in draw(report, tmp_path)]
    assert drawn == ["losses.png", "losses_best.png", "noise.png"]
    assert all((tmp_path / name).read_bytes()[:4] == b"\x89PNG" for name in drawn)


def test_shares_of_few_records_have_an_interval_and_a_count():
    overlap = dict(rouge_l=0.4, bleu=0.2, rouge_l_values=[0.4], bleu_values=[0.2])
    found = Memorization(**overlap, exact=0.5, prefix=1.0, records=2, skipped=1)
    none = Memorization(**overlap, exact=None, prefix=None, records=0, skipped=3)
    shown = {label: values for label, *values in rows(replace(made_up(), memorization={"train": found, "test": none}))}
    assert shown["extracted from the prompt"] == ["0.500 [0.095, 0.905] of 2", "-"]
    assert shown["extracted from 50 tokens"] == ["1.000 [0.342, 1.000] of 2", "-"]


def test_a_report_is_read_back_from_its_file(tmp_path):
    report = made_up()
    path = save(report, tmp_path / "new" / "folder")
    values = json.loads(path.read_text())
    assert list(values)[:5] == ["model", "noise", "neft_zoo", "options", "losses"]
    assert EvaluationReport.from_dict(values) == report and "replaced_tokens" not in values["robustness"]["curves"]
    assert EvaluationReport.from_dict({**values, "later": 1}) == report, "a later version's key"
    assert report["losses"]["end"]["test"]["loss"] == 2.0, "as of the file"
    with pytest.raises(KeyError):
        report["loses"]


def test_scorers_and_parts_from_python(tmp_path):
    options = Options(parts=(), answers=2, records=2, max_new_tokens=4)
    report = evaluate(MODEL, "quickstart", options=options, scorers={"length": lambda texts: map(len, texts)})
    assert len(report["scores"]["length"]["values"]) == 2
    assert report["losses"] is report["memorization"] is report["text"] is report["robustness"] is None


@pytest.mark.parametrize(
    ("model", "text", "argv", "message"),
    [
        ("./no/such/model", "", [], "model must be an existing folder or a name on the hub, got './no/such/model'"),
        (".", "", [], "model must be a folder with config.json or adapter_config.json, got '.'"),
        (MODEL, "dataset_test_split: tset", [], "the dataset must have a split 'tset', got train, test"),
        (MODEL, "dataset_name: data", [], "the dataset must have a split 'test', got train"),
        (MODEL, "dataset_name: empty", [], "the recipe's dataset must be readable and its files not empty"),
        (MODEL, "", ["--parts", "loses"], "parts must be among"),
        (MODEL, "", ["--records", "abc"], "argument --records: must be a whole number or all, got 'abc'"),
        (MODEL, "", ["--words", "4000"], "words must be at most max_new_tokens, 6, got 4000"),
        (
            MODEL,
            "",
            "--parts text --max_new_tokens 40 --words 40".split(),
            "words must be at most the words",
        ),
        (MODEL, "", ["--tasks", "arc_easy"], "a benchmark task needs lm_eval: pip install 'neft-zoo[eval]'"),
        (MODEL, "", ["--parts", "instructions"], "following instructions needs lm_eval: pip install 'neft-zoo[eval]'"),
        (MODEL, "", ["--noise", "symnoize"], "symnoise"),
    ],
)
def test_wrong_input_is_one_sentence_and_writes_nothing(cli, tmp_path, monkeypatch, model, text, argv, message):
    if {"--tasks", "instructions"} & {*argv} and importlib.util.find_spec("lm_eval"):
        pytest.skip("lm-evaluation-harness is installed")
    monkeypatch.chdir(tmp_path)
    record = json.dumps({"prompt": "Say a word.", "completion": " Cell."})
    for folder, test in (("data", None), ("empty", "")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.jsonl").write_text(record + "\n")
        if test is not None:
            (tmp_path / folder / "test.jsonl").write_text(test)
    (tmp_path / "r.yaml").write_text(f"extends: quickstart\n{text}\n")
    before = sorted(tmp_path.rglob("*"))
    parts = [] if "--parts" in argv else ["--parts", "robustness" if "--noise" in argv else "losses"]
    status, out, error = cli("evaluate", model, "--config", "r.yaml", "--output", "out", *SMALL, *parts, *argv)
    said = [line for line in error.splitlines() if line.startswith("neft-zoo: error: ")]
    assert status == 2 and len(said) == 1 and message in said[0], error
    assert out == "" and sorted(tmp_path.rglob("*")) == before


def test_a_report_is_written_whole_or_not_at_all(tmp_path):
    with pytest.raises(ValueError):
        save(replace(made_up(), tasks={"mine": {"acc": math.nan}}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_tasks_say_what_is_missing(tmp_path):
    with pytest.raises(NoiseError, match="task_folder must be an existing folder"):
        run_tasks(None, None, ["mine"], folder=tmp_path / "no")
    if importlib.util.find_spec("lm_eval") is None:
        with pytest.raises(NoiseError, match=r"pip install 'neft-zoo\[eval\]'"):
            run_tasks(None, None, ["mine"])


@pytest.mark.slow
def test_a_local_task_runs_through_the_harness(cli, tmp_path):
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed (neft-zoo[eval])")
    text = [f'{{"q": "A cell is", "a": "{answer}"}}' for answer in (" small", " the", " made", " a")]
    (tmp_path / "data.jsonl").write_text("\n".join(text) + "\n")
    (tmp_path / "words.yaml").write_text(
        f"task: words\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path / 'data.jsonl'}}}}}\n"
        "test_split: test\noutput_type: loglikelihood\ndoc_to_text: '{{q}}'\ndoc_to_target: '{{a}}'\n"
        "target_delimiter: ''\nmetric_list: [{metric: acc}, {metric: perplexity}]\n"
    )
    argv = [
        "evaluate",
        MODEL,
        "--config",
        "quickstart",
        "--parts",
        "losses",
        "--records",
        4,
        "--task_folder",
        tmp_path,
    ]
    status, out, error = cli(*argv, "--tasks", "words", "--output", tmp_path / "out")
    assert status == 0, error
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())["tasks"]["words"]

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(MODEL), AutoTokenizer.from_pretrained(MODEL)
    logs, right = [], []
    for answer in (" small", " the", " made", " a"):
        prompt, whole = (tokenizer(part)["input_ids"] for part in ("A cell is", f"A cell is{answer}"))
        with torch.no_grad():
            rows = model(torch.tensor([whole])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        target = torch.tensor(whole[len(prompt) :])
        logs.append(rows.gather(1, target[:, None]).sum().item())
        right.append(bool((rows.argmax(-1) == target).all()))
    assert found["acc"] == sum(right) / 4
    assert math.log(found["perplexity"]) == pytest.approx(-sum(logs) / 4, abs=1e-4)
    assert "words, acc" in out and "words, perplexity" in out
    status, _, error = cli(*argv, "--tasks", "wrods", "--output", tmp_path / "none")
    assert status == 2 and "got 'wrods'" in error and not (tmp_path / "none").exists()
