"""`neft-zoo judge`: pairs, verdicts, win rates, and what it refuses."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from neft_zoo import NoiseError
from neft_zoo.config import recipe
from neft_zoo.judging.cache import Cache
from neft_zoo.judging.endpoint import read_reply
from neft_zoo.judging.json_files import Outputs
from neft_zoo.judging.judges import PythonJudge, judge_pairs
from neft_zoo.judging.pairs import Pair, match, sample
from neft_zoo.judging.rating_page import KIND, read_ratings, write_page
from neft_zoo.judging.winrate import summarize


def outputs(path, name, answers):
    records = [{"instruction": text, "output": answer, "generator": name} for text, answer in answers.items()]
    path.write_text(json.dumps(records))
    return path


def pairs_of(count):
    return [Pair(f"Question {i}?", f"a {'long ' * i}answer", "another answer") for i in range(count)]


class Scripted:
    """Judges by a function of the two answers, and counts what it was asked."""

    def __init__(self, verdict):
        self.verdict, self.asked = verdict, 0

    def judge(self, prompts, completions, shuffle_order=True):
        assert shuffle_order is False
        self.asked += len(prompts)
        return [self.verdict(*answers) for answers in completions]


def longer(first, second):
    return int(len(second) > len(first))


def test_both_orders_are_asked_and_a_biased_judge_makes_ties():
    pairs = pairs_of(20)
    judgements, reasons = judge_pairs(PythonJudge(Scripted(longer), "longer"), pairs, Cache(None), progress=False)
    assert [each.preference for each in judgements] == [float(len(p.ours) > len(p.theirs)) for p in pairs]
    assert reasons == {}
    judgements, _ = judge_pairs(PythonJudge(Scripted(lambda *_: 0), "first"), pairs, Cache(None), progress=False)
    report = summarize(judgements)
    assert {each.preference for each in judgements} == {0.5} and report["win_rate"] == 50
    assert report["consistent"] == 0 and report["first_preferred"] == 100


def test_equal_answers_are_ties_that_nobody_is_asked_about():
    judge = Scripted(longer)
    pairs = [Pair("a", "same", "same"), Pair("b", "longer one", "short")]
    judgements, _ = judge_pairs(PythonJudge(judge, "longer"), pairs, Cache(None), progress=False)
    assert [each.preference for each in judgements] == [0.5, 1.0] and judge.asked == 2


def test_equal_answers_say_nothing_about_a_judges_order():
    pairs = [*pairs_of(4), *(Pair(f"equal {i}", "same", "same") for i in range(20))]
    judgements, _ = judge_pairs(PythonJudge(Scripted(lambda *_: 0), "first"), pairs, Cache(None), progress=False)
    report = summarize(judgements)
    assert (report.consistent, report.first_preferred, report.ties) == (0, 100, 24)
    assert judgements[-1].orders == (None, None)
    read = summarize([replace(each, orders=(0.5, 0.5)) for each in judgements[4:]])
    assert read.consistent is read.first_preferred is None, "also from annotations that have such orders"


def test_an_edited_judge_is_asked_again(cli, tmp_path, monkeypatch):
    outputs(tmp_path / "ours.json", "mine", {"q": "a longer answer"})
    outputs(tmp_path / "theirs.json", "other", {"q": "an answer"})
    code = "class Mine:\n    def judge(self, prompts, completions, shuffle_order=True):\n        return [%s]\n"
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for verdict, wins in (("int(len(b) > len(a))", 1), ("int(len(b) < len(a))", 0)):
        (tmp_path / "edited_judge.py").write_text(code % f"{verdict} for a, b in completions")
        monkeypatch.delitem(sys.modules, "edited_judge", raising=False)
        status, _, error = cli("judge", "ours.json", "theirs.json", "--judge", "edited_judge:Mine")
        assert status == 0, error
        assert json.loads((tmp_path / "judged" / "judged.json").read_text())["wins"] == wins


def test_a_verdict_is_asked_once_for_the_same_judge_prompt_answers_and_order(tmp_path):
    path, pairs = tmp_path / "verdicts.jsonl", pairs_of(8)
    first, _ = judge_pairs(PythonJudge(Scripted(longer), "longer"), pairs, Cache(path), progress=False)
    with path.open("a") as file:
        file.write('{"key": "half a li')  # as a killed run leaves it
    again = Scripted(longer)
    assert judge_pairs(PythonJudge(again, "longer"), pairs, Cache(path), progress=False)[0] == first
    assert again.asked == 0
    changed = [*pairs[:-1], Pair(pairs[-1].instruction, "changed", "another answer")]
    judge_pairs(PythonJudge(again, "longer"), changed, Cache(path), progress=False)
    assert again.asked == 2, "both orders of the one that changed"
    assert len(Cache(path).verdicts) == 18, "a broken line costs its own verdict only"
    other = Scripted(longer)
    judge_pairs(PythonJudge(other, "another name"), pairs, Cache(path), progress=False)
    assert other.asked == 16


def test_failed_verdicts_are_retried_then_missing_never_averaged():
    tries = {}

    def moody(first, second):
        tries[first, second] = tries.get((first, second), 0) + 1
        if "long long long long " in first:
            return -1  # never a verdict in this order
        return -1 if tries[first, second] == 1 else longer(first, second)

    judge = PythonJudge(Scripted(moody), "moody", retries=2)
    judgements, reasons = judge_pairs(judge, pairs_of(6), Cache(None), progress=False)
    report = summarize(judgements)
    assert reasons == {"the judge gave no verdict": 2} and (report["judged"], report["missing"]) == (4, 2)
    assert max(tries.values()) == 3
    values = [each.preference for each in judgements if each.preference is not None]
    assert report["win_rate"] == 100 * sum(values) / 4
    with pytest.raises(NoiseError, match="all failed, mostly: the judge gave no verdict"):
        judge_pairs(PythonJudge(Scripted(lambda *_: -1), "no"), pairs_of(3), Cache(None), progress=False)


def test_a_judge_that_raises_has_failed_and_one_that_returns_something_else_is_refused(cli, tmp_path):
    calls = []

    def shaky(first, second):
        calls.append(1)
        if len(calls) == 1 or "long long long " in first:
            raise TimeoutError("no reply in 60 s.")
        return np.int64(longer(first, second))  # numpy's numbers are as good

    judge, cache = PythonJudge(Scripted(shaky), "shaky", retries=1), Cache(tmp_path / "c.jsonl")
    judgements, reasons = judge_pairs(judge, pairs_of(3), cache, progress=False)
    assert [each.preference for each in judgements] == [0.0, 0.0, 1.0] and reasons == {}
    assert len(Cache(cache.path).verdicts) == 6, "all are on disk"
    with pytest.raises(NoiseError, match="all failed, mostly: the judge raised TimeoutError: no reply in 60 s."):
        judge_pairs(judge, pairs_of(9)[4:], Cache(None), progress=False)
    with pytest.raises(NoiseError, match="judge 'short' must return 4 verdicts, got \\[0\\]"):
        short = type("Short", (), {"judge": lambda self, prompts, completions, shuffle_order: [0]})()
        judge_pairs(PythonJudge(short, "short"), pairs_of(2), Cache(None), progress=False)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("A", 0),
        ("b.", 1),
        (" **B** ", 1),
        ("Answer: A", 0),
        ("T", 0.5),
        ("tie", 0.5),
        ("A is shorter, B is right.\nVerdict: B", 1),
        ("The answer is A.", None),
        ("A or B", None),
        ("", None),
        ("C", None),
        ("The", None),
    ],
)
def test_a_reply_is_a_verdict_or_nonsense(text, verdict):
    found, reason = read_reply(text)
    assert found == verdict and bool(reason) == (verdict is None)


def test_judges_files_with_a_judge_of_ones_own(cli, tmp_path):
    answers = {pair.instruction: pair for pair in pairs_of(12)}
    outputs(tmp_path / "ours.json", "mine", {text: pair.ours for text, pair in answers.items()})
    outputs(tmp_path / "theirs.json", "other", {text: pair.theirs for text, pair in reversed(answers.items())})
    (tmp_path / "own_judge.py").write_text(
        "class Longer:\n"
        "    def judge(self, prompts, completions, shuffle_order=True):\n"
        "        return [int(len(b) > len(a)) for a, b in completions]\n"
    )
    status, out, error = cli("judge", "ours.json", "theirs.json", "--judge", "own_judge:Longer")
    assert status == 0, error
    assert {path.name for path in (tmp_path / "judged").iterdir()} == {
        "judged.json", "annotations.json", "verdicts.jsonl"
    }  # fmt: skip
    report = json.loads((tmp_path / "judged" / "judged.json").read_text())
    assert report["judged"] == 12 and report["wins"] == sum(len(p.ours) > len(p.theirs) for p in answers.values())
    first = json.loads((tmp_path / "judged" / "annotations.json").read_text())[0]
    assert first["generator_2"] == "mine" and first["output_2"] == "a answer" and first["preference"] == 1.0


LIKELIER = f"""
import numpy, torch
from transformers import AutoModelForCausalLM, AutoTokenizer

class Likelier:
    def __init__(self, model={str(recipe.folder() / "quickstart" / "model")!r}):
        self.model, self.tokenizer = (kind.from_pretrained(model) for kind in (AutoModelForCausalLM, AutoTokenizer))

    def judge(self, prompts, completions, shuffle_order=True):
        flips = numpy.random.choice([True, False], size=len(prompts)) if shuffle_order else [False] * len(prompts)
        found = []
        for prompt, pair, flip in zip(prompts, completions, flips):
            losses = [self.loss(prompt, text) for text in (pair[::-1] if flip else pair)]
            found.append(-1 if None in losses else int(losses[1] < losses[0]) ^ int(flip))
        return found

    @torch.no_grad()
    def loss(self, prompt, text):
        ids = self.tokenizer(prompt + " " + text, return_tensors="pt")["input_ids"]
        return self.model(input_ids=ids, labels=ids).loss.item() if text else None
"""


def test_a_model_judges_through_the_method_of_trls_pairwise_judges(cli, tmp_path):
    text = "A cell is the basic unit of life, and all living things are made of cells."
    answers = {"What is a cell?": text, "What are living things made of?": text, "And nothing?": text}
    outputs(tmp_path / "ours.json", "mine", answers)
    worse = [" ".join(reversed(text.split())), "x q z , , x q the the of of of zzz", ""]
    outputs(tmp_path / "theirs.json", "other", dict(zip(answers, worse, strict=True)))
    (tmp_path / "likelier.py").write_text(LIKELIER)
    status, out, error = cli("judge", "ours.json", "theirs.json", "--judge", "likelier:Likelier")
    assert status == 0, error
    report = json.loads((tmp_path / "judged" / "judged.json").read_text())
    assert (report["judged"], report["wins"], report["missing"], report["consistent"]) == (2, 2, 1, 100)
    assert report["reasons"] == {"the judge gave no verdict": 2} and "2 of 3" in out


def test_a_page_is_blind_and_its_export_is_read_back(tmp_path):
    pairs = [*pairs_of(10), Pair("equal", "same", "same"), Pair("tag", "</script><b>", "plain")]
    first = write_page(pairs, tmp_path / "a.html", seed=1).read_text()
    assert first == write_page(pairs, tmp_path / "b.html", seed=1).read_text()
    assert first != write_page(pairs, tmp_path / "b.html", seed=2).read_text()
    assert "http" not in first.replace("http-equiv", "") and "ours" not in first and "theirs" not in first
    data = first.split('id="data">')[1].split("</script>")[0]
    items = json.loads(data)["items"]
    assert len(items) == 11 and {item["instruction"] for item in items} == {p.instruction for p in pairs} - {"equal"}
    ours = {pair.instruction: pair.ours for pair in pairs}
    assert sum(item["first"] == ours[item["instruction"]] for item in items) in (5, 6), "half are swapped"
    assert [item["instruction"] for item in items] != [pair.instruction for pair in pairs if pair.ours != pair.theirs]
    ratings = {item["id"]: "first" if item["first"] == ours[item["instruction"]] else "second" for item in items[:-2]}
    ratings[items[-2]["id"]] = "tie"
    (tmp_path / "ratings.json").write_text(json.dumps({"kind": KIND, "page": "x", "ratings": ratings}))
    found = {each.pair.instruction: each.preference for each in read_ratings(tmp_path / "ratings.json", pairs)}
    assert found.pop("equal") == 0.5 and found.pop(items[-1]["instruction"]) is None
    assert found.pop(items[-2]["instruction"]) == 0.5 and set(found.values()) == {1.0}


def test_a_limit_draws_the_same_pairs_for_every_judge():
    pairs = pairs_of(30)
    assert sample(pairs, 5, 0) == sample(pairs, 5, 0) != sample(pairs, 5, 1)
    assert sample(pairs, 30, 0) == sample(pairs, None, 0) == pairs


def test_outputs_for_other_prompts_do_not_match():
    with pytest.raises(NoiseError, match="THEIRS lacks 1, such as 'b'"):
        match(Outputs("x", {"a": "1", "b": "2"}), Outputs("y", {"a": "1"}))
    with pytest.raises(NoiseError, match="OURS lacks 1, such as 'b'"):
        match(Outputs("x", {"a": "1"}), Outputs("y", {"a": "1", "b": "2"}))


GOOD = '[{"instruction": "q", "output": "a", "generator": "g"}, {"instruction": "r", "output": "b", "generator": "g"}]'
GAMED = "index,preference,std_delta_len,instruction_difficulty,not_gamed_baseline\n0,1,0,0,False\n1,1,0,0,False\n"
RATED = '{"kind": "neft-zoo ratings", "ratings": %s}'


@pytest.mark.parametrize(
    ("files", "argv", "message"),
    [
        ({}, "judge no.json theirs.json", "no.json must be a file that can be read: No such file"),
        ({"o.json": "[]"}, "judge o.json theirs.json", "o.json must hold at least one record, got none"),
        ({"o.json": '[{"instruction": "q", "out'}, "judge o.json theirs.json", "damaged or cut off"),
        ({"o.json": '{"a": 1}'}, "judge o.json theirs.json", "o.json must be a list of records"),
        ({"o.json": '[{"instruction": "q"}]'}, "judge o.json theirs.json", "must have a text 'output', got None"),
        (
            {"o.json": '[{"instruction": "q", "output": "a"}, {"instruction": "q", "output": "b"}]'},
            "judge o.json theirs.json",
            "o.json must hold every instruction once, got 'q'",
        ),
        (
            {"o.json": GOOD.replace('"b", "generator": "g"', '"b", "generator": "h"')},
            "judge o.json theirs.json",
            "one generator, got g, h",
        ),
        ({"o.json": '[{"instruction": "q", "output": "a"}]'}, "judge o.json theirs.json", "OURS lacks 1, such as 'r'"),
        ({}, "judge theirs.json", "either OURS and THEIRS or --annotations must be given"),
        ({}, "judge theirs.json theirs.json", "model must be given for an endpoint"),
        ({}, "judge theirs.json theirs.json --judge gpt4", "judge must be endpoint, MODULE:NAME or a file"),
        ({}, "judge theirs.json theirs.json --judge no_such_module:x", "judge must be MODULE:NAME"),
        ({}, "judge theirs.json theirs.json --judge json:loads", "must have a method judge"),
        ({}, "judge theirs.json theirs.json --judge r.json", "r.json must be a file that can be read"),
        ({"r.json": "{}"}, "judge theirs.json theirs.json --judge r.json", "must be an export of the rating page"),
        (
            {"r.json": RATED % '{"abc": "tie"}'},
            "judge theirs.json theirs.json --judge r.json",
            "must rate the answers of OURS and THEIRS, but rates others: 1, such as 'abc'",
        ),
        ({"r.json": RATED % '{"abc": "best"}'}, "judge theirs.json theirs.json --judge r.json", "got 'best'"),
        ({}, "judge theirs.json theirs.json --human p.html", "but all are equal"),
        ({}, "judge theirs.json theirs.json --model m --limit 0", "limit must be"),
        ({}, "judge theirs.json theirs.json --model m --retries -1", "retries must be"),
        ({}, "judge o.json theirs.json --model m", "environment variable OPENAI_API_KEY must hold the key"),
        ({}, "judge o.json theirs.json --model m --base_url localhost:80", "base_url must start with http"),
        ({}, "judge --annotations no.json", "no.json must be a file that can be read"),
        (
            {"a.json": '[{"instruction": "q", "output_1": "a", "output_2": "b", "preference": 3}]'},
            "judge --annotations a.json",
            "a preference in a.json must be a number from 1 to 2, 0 or null, got 3",
        ),
        (
            {"a.json": '[{"instruction": "q", "output_1": "a", "output_2": "b", "preference": null}]'},
            "judge --annotations a.json",
            "all 1 are missing",
        ),
        (
            {"a.json": '[{"instruction": "q", "output_1": "a", "output_2": "b", "preference": true}]'},
            "judge --annotations a.json",
            "must be a number from 1 to 2, 0 or null, got True",
        ),
        (
            {"a.json": '[{"instruction": "q", "output_1": "a", "output_2": "b", "preference": 2, "orders": 2}]'},
            "judge --annotations a.json",
            "orders in a.json must be two preferences, got 2",
        ),
        (
            {"a.json": json.dumps([{"instruction": "q", "output_1": "a", "output_2": "b", "preference": 2}] * 3)},
            "judge --annotations a.json",
            "a.json must hold every instruction once, got 'q'",
        ),
        ({"r.json": RATED % '{"abc": ["tie"]}'}, "judge theirs.json theirs.json --judge r.json", "a choice in r.json"),
        ({}, "judge o.json theirs.json --model m --max_tokens 0", "max_tokens must be"),
        ({}, "judge o.json theirs.json --model m --temperature -1", "temperature must be"),
        (
            {"g.csv": GAMED},
            "judge o.json theirs.json --model m --gamed g.csv --limit 1",
            "with --gamed every instruction must be judged, but --limit draws 1 of them",
        ),
        (
            {"g.csv": GAMED, "o.json": '[{"instruction": "r", "output": "a"}, {"instruction": "q", "output": "b"}]'},
            "judge o.json theirs.json --model m --gamed g.csv",
            "in AlpacaEval's order, but their orders differ",
        ),
        (
            {"g.csv": GAMED + "2,1,0,0,False\n"},
            "judge o.json theirs.json --model m --gamed g.csv",
            "must be those of AlpacaEval's 3 instructions in their order, got 2",
        ),
        *(
            (
                {"g.csv": GAMED + row},
                "judge o.json theirs.json --model m --gamed g.csv",
                "must be AlpacaEval's df_gamed.csv, with finite numbers in the columns index, preference (0 to 1), ",
            )
            for row in ("1,nan,0,0,False", "1,1.5,0,0,False", "1,-1,0,0,False", "1,1,inf,0,False", "1,1,0,nan,False")
        ),
        ({"g.csv": "index,x\n0,1\n"}, "judge o.json theirs.json --model m --gamed g.csv", "AlpacaEval's df_gamed.csv"),
    ],
)
def test_wrong_input_is_one_sentence_and_writes_nothing(cli, tmp_path, monkeypatch, files, argv, message):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "theirs.json").write_text(GOOD)
    (tmp_path / "o.json").write_text(GOOD.replace('"a"', '"another"'))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    before = sorted(tmp_path.rglob("*"))
    status, out, error = cli(*argv.split())
    said = error.splitlines()
    assert status == 2 and message in error and said[-1].startswith("neft-zoo: error: ") and "Traceback" not in error
    assert sum(line.startswith("neft-zoo: error: ") for line in said) == 1
    assert out == "" and sorted(tmp_path.rglob("*")) == before


def test_an_address_in_the_environment_is_the_endpoints(cli, tmp_path, monkeypatch):
    """Verdicts of two endpoints must not be mixed, and openai's client reads the variable by itself."""
    monkeypatch.setenv("OPENAI_BASE_URL", "localhost:80")
    outputs(tmp_path / "ours.json", "mine", {"q": "a"})
    outputs(tmp_path / "theirs.json", "other", {"q": "b"})
    status, _, error = cli("judge", "ours.json", "theirs.json", "--model", "m")
    assert status == 2 and "base_url must start with http:// or https://, got 'localhost:80'" in error


def test_names_and_errors_send_a_terminal_no_control_characters(cli, tmp_path):
    hostile = "\x1b[2Jgpt\x1b]0;title\x07\u202e"
    outputs(tmp_path / "ours.json", hostile, {"q": "aa", "r": "b"})
    outputs(tmp_path / "theirs.json", "other", {"q": "a", "r": "bb"})
    (tmp_path / "own_judge.py").write_text(
        "class Longer:\n"
        "    def judge(self, prompts, completions, shuffle_order=True):\n"
        "        return [int(len(b) > len(a)) for a, b in completions]\n"
    )
    status, out, error = cli("judge", "ours.json", "theirs.json", "--judge", "own_judge:Longer")
    assert status == 0 and "gpt" in out and all(char.isprintable() or char == "\n" for char in out), error
    records = [{"instruction": "q", "output": "a", "generator": name} for name in (hostile, "other")]
    (tmp_path / "two.json").write_text(json.dumps([records[0], {**records[1], "instruction": "r"}]))
    status, out, error = cli("judge", "two.json", "theirs.json", "--judge", "own_judge:Longer")
    assert status == 2 and "one generator" in error and all(char.isprintable() or char == "\n" for char in error)
