"""`neft-zoo judge`: pairs, verdicts, win rates, and what it refuses."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from neft_zoo import NoiseError, recipe
from neft_zoo.cli import main
from neft_zoo.judging import glm
from neft_zoo.judging.cache import Cache
from neft_zoo.judging.endpoint import read_reply
from neft_zoo.judging.files import Outputs
from neft_zoo.judging.human import KIND, read_ratings, write_page
from neft_zoo.judging.judges import PythonJudge, judge_pairs
from neft_zoo.judging.matches import Judgement, Pair, match, sample
from neft_zoo.judging.winrate import summarize, wilson


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


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        status = main([str(argument) for argument in argv])
        out = capsys.readouterr()
        return status, out.out, out.err

    return run


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


def test_wilsons_interval():
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263 and 15 of 148.
    assert wilson(81 / 263, 263) == pytest.approx([25.53, 36.62], abs=0.01)
    assert wilson(15 / 148, 148) == pytest.approx([6.24, 16.05], abs=0.01)
    low, high = wilson(1.0, 20)
    assert 80 < low < 90 and high == pytest.approx(100)


def simulated(quality, bias, ratio, count, seed=0):
    """Return judgements whose chance of a win is known: quality, and a bias towards the longer answer."""
    random = np.random.default_rng(seed)
    theirs = random.integers(200, 1500, count)
    ours = (theirs * ratio * np.exp(random.normal(0, 0.4, count))).astype(int)
    difference = (ours - theirs) / (ours - theirs).std(ddof=1)
    chance = 1 / (1 + np.exp(-(quality + bias * np.tanh(difference))))
    wins = (random.random(count) < chance).astype(float)
    return [
        Judgement(Pair(str(i), "o" * int(a), "t" * int(b)), win)
        for i, (a, b, win) in enumerate(zip(ours, theirs, wins, strict=True))
    ]


@pytest.mark.parametrize(
    ("quality", "bias", "ratio"), [(0.0, 1.5, 1.6), (-1.0, 1.0, 1.5), (0.8, 1.0, 0.6), (0.5, 0, 1.5)]
)
def test_the_length_controlled_rate_is_the_one_without_the_bias(quality, bias, ratio):
    truth = 100 / (1 + math.exp(-quality))
    report = summarize(simulated(quality, bias, ratio, 4000))
    low, high = report["length_controlled_interval"]
    assert low < truth < high and high - low < 8
    assert report["length_controlled"] == pytest.approx(truth, abs=3)
    if bias:
        assert abs(report["win_rate"] - truth) > 8, "the plain rate is off"


@pytest.mark.slow
def test_the_intervals_hold_the_truth_about_as_often_as_they_say():
    truth, hits, plain = 100 / (1 + math.exp(-0.3)), 0, 0
    for seed in range(60):
        report = summarize(simulated(0.3, 1.0, 1.3, 300, seed))
        hits += report["length_controlled_interval"][0] < truth < report["length_controlled_interval"][1]
        plain += report["win_rate_interval"][0] < truth < report["win_rate_interval"][1]
    assert 52 <= hits <= 60 and plain < 40


def test_the_fit_is_the_minimum_of_the_penalized_loss():
    random = np.random.default_rng(1)
    features, targets, counts = random.normal(size=(80, 3)), random.random(80), random.random(80)

    def loss(weights, strength):
        scores = features @ weights
        return abs(weights).sum() + strength * ((np.logaddexp(0, scores) - targets * scores) * counts).sum()

    for strength in (0.01, 1.0, 100.0):
        found = glm.fit(features, targets, counts, strength)
        steps = random.normal(size=(200, 3)) * 0.01
        assert all(loss(found, strength) <= loss(found + step, strength) + 1e-7 for step in steps)
    assert (abs(glm.fit(features, targets, counts, 0.001)) < 1e-9).all(), "a strong penalty leaves nothing"


def gamed(path, difficulty, random):
    """Write a file in the form of AlpacaEval's df_gamed.csv: a judge of gamed baselines who likes length."""
    lines = ["index,model,preference,std_delta_len,instruction_difficulty,not_gamed_baseline"]
    for name in ("concise", "verbose"):
        for i, hard in enumerate(difficulty):
            length = random.normal()
            chance = 1 / (1 + math.exp(1.2 * math.tanh(length) - 0.6 * hard))
            lines.append(f"{i},{name},{chance},{length},{hard},False")
    path.write_text("\n".join(lines) + "\n")
    return path


def published_kind(tmp_path, lacking=0, weighted=False, seed=3):
    """Write annotations as the leaderboard has them, of 805 instructions or a few less, and df_gamed.csv.

    Returns:
        The records, and the win rate in percent without the judge's bias towards length.
    """
    random, count = np.random.default_rng(seed), 805 - lacking
    difficulty = random.normal(size=805)
    gamed(tmp_path / "df_gamed.csv", difficulty, random)
    theirs = random.integers(200, 1500, count)
    ours = (theirs * 1.3 * np.exp(random.normal(0, 0.4, count))).astype(int)
    bias = np.tanh((theirs - ours) / (theirs - ours).std(ddof=1))
    chance = 1 / (1 + np.exp(-(-1.0 - bias + 0.8 * difficulty[:count])))
    preferences = (1 + (chance if weighted else random.random(count) < chance)).tolist()
    preferences[::90] = [0] * len(preferences[::90])  # how the first leaderboard spelled a draw
    about = {"dataset": "koala", "generator_1": "base", "generator_2": "model", "annotator": "judge"}
    about |= {"price_per_example": None, "raw_completion": {"text": "m", "logprobs": {"content": []}}}
    records = [
        {"instruction": f"q{i}", "output_1": "t" * int(a), "output_2": "o" * int(b), "preference": value, **about}
        for i, (a, b, value) in enumerate(zip(theirs, ours, preferences, strict=True))
    ]
    (tmp_path / "annotations.json").write_text(json.dumps(records))
    return records, 100 * float((1 / (1 + np.exp(-(-1.0 + 0.8 * difficulty)))).mean())


@pytest.mark.parametrize("lacking", [0, 2])
def test_difficulties_are_the_published_kind(cli, tmp_path, lacking):
    records, truth = published_kind(tmp_path, lacking)
    status, _, error = cli("judge", "--annotations", "annotations.json", "--gamed", "df_gamed.csv", "--output", "here")
    assert status == 0, error
    report = json.loads((tmp_path / "here" / "judged.json").read_text())
    low, high = report["length_controlled_interval"]
    assert low < truth < high and report["length_controlled"] == pytest.approx(truth, abs=3) and report["difficulty"]
    assert report["instructions"] == 805 - lacking
    for count in (12, 700):
        (tmp_path / "annotations.json").write_text(json.dumps(records[:count]))
        status, out, error = cli("judge", "--annotations", "annotations.json", "--gamed", "df_gamed.csv")
        assert status == 2 and f"AlpacaEval's 805 instructions in their order, got {count}" in error and out == ""


@pytest.mark.slow
@pytest.mark.parametrize(("lacking", "weighted", "seed"), [(0, False, 3), (0, True, 4), (2, False, 5), (2, True, 6)])
def test_rates_are_those_of_the_alpaca_eval_package(cli, tmp_path, monkeypatch, lacking, weighted, seed):
    theirs = pytest.importorskip("alpaca_eval.metrics.glm_winrate", reason="alpaca_eval is not installed")
    import pandas

    monkeypatch.setattr(theirs, "hf_hub_download", lambda **_: str(tmp_path / "df_gamed.csv"))
    records, _ = published_kind(tmp_path, lacking, weighted, seed)
    package = theirs.get_length_controlled_winrate(pandas.DataFrame(records), save_weights_dir=None)
    assert cli("judge", "--annotations", "annotations.json", "--gamed", "df_gamed.csv", "--output", "here")[0] == 0
    report = json.loads((tmp_path / "here" / "judged.json").read_text())
    assert report["win_rate"] == pytest.approx(package["win_rate"], abs=0.01)
    assert report["standard_error"] == pytest.approx(package["standard_error"], abs=0.01)
    assert report["length_controlled"] == pytest.approx(package["length_controlled_winrate"], abs=0.5)


def counted(tmp_path, wins, losses, draws):
    """Write annotations with so many wins, losses and draws."""
    preferences = [2] * wins + [1] * losses + [0] * draws
    records = [
        {"instruction": f"q{i}", "output_1": "a", "output_2": "b", "preference": value}
        for i, value in enumerate(preferences)
    ]
    (tmp_path / "annotations.json").write_text(json.dumps(records))


# From AlpacaEval's leaderboards of GPT-4 and of text-davinci-003 as the judge, of which the verdicts are whole.
@pytest.mark.parametrize(
    ("wins", "losses", "draws", "rate", "error"),
    [
        (205, 584, 16, 26.459627329192543, 1.535711469748),  # alpaca-7b
        (495, 308, 0, 61.64383561643836, 1.7170195034517275),  # alpaca-7b-neft
        (659, 146, 0, 81.86335403726707, 1.3589241929038658),  # llama-2-chat-7b-evol70k-neft
        (327, 462, 16, 41.61490683229814, 1.7205231659718316),  # alpaca-7b, text-davinci-003
    ],
)
def test_win_rates_of_published_counts_are_the_leaderboards(cli, tmp_path, wins, losses, draws, rate, error):
    counted(tmp_path, wins, losses, draws)
    assert cli("judge", "--annotations", "annotations.json", "--output", "here")[0] == 0
    report = json.loads((tmp_path / "here" / "judged.json").read_text())
    assert (report["wins"], report["losses"], report["ties"]) == (wins, losses, draws)
    assert report["win_rate"] == pytest.approx(rate, abs=0.01)
    assert report["standard_error"] == pytest.approx(error, abs=0.01)


@pytest.mark.slow
def test_win_rates_of_whole_leaderboards(cli, tmp_path):
    package = pytest.importorskip("alpaca_eval", reason="alpaca_eval is not installed")
    boards = Path(package.__file__).parent / "leaderboards" / "data_AlpacaEval"
    rows = [row for path in sorted(boards.glob("*.csv")) for row in csv.DictReader(path.read_text().splitlines())]
    assert len(rows) > 100
    for row in rows:
        counted(tmp_path, *(int(float(row[name])) for name in ("n_wins", "n_wins_base", "n_draws")))
        assert cli("judge", "--annotations", "annotations.json", "--output", "here")[0] == 0
        report = json.loads((tmp_path / "here" / "judged.json").read_text())
        assert report["win_rate"] == pytest.approx(float(row["win_rate"]), abs=0.01)
        assert report["standard_error"] == pytest.approx(float(row["standard_error"]), abs=0.01)


def test_few_or_onesided_judgements_have_no_invented_numbers():
    few = summarize([Judgement(pair, 1.0) for pair in pairs_of(9)])
    assert few["length_controlled"] is None and few["win_rate"] == 100
    many = summarize([Judgement(Pair(str(i), "abc", "de"), 1.0) for i in range(40)])
    assert many["length_controlled"] > 90 and many["win_rate_interval"][0] < 95
    with pytest.raises(NoiseError, match="all 2 are missing"):
        summarize([Judgement(pair, None) for pair in pairs_of(2)])


def test_annotations_of_alpaca_eval_are_read(cli, tmp_path):
    preferences = [2, 2.0, 1, 1.5, 0, 1.0000001827, None, 1.25]
    records = [
        {"instruction": f"q{i}", "output_1": "base", "generator_1": "gpt4", "output_2": "ours", "generator_2": "mine",
         "annotator": "weighted", "preference": value}
        for i, value in enumerate(preferences)
    ]  # fmt: skip
    (tmp_path / "annotations.json").write_text(json.dumps(records))
    status, out, error = cli("judge", "--annotations", "annotations.json", "--output", "here")
    assert status == 0, error
    report = json.loads((tmp_path / "here" / "judged.json").read_text())
    assert report["win_rate"] == pytest.approx(100 * (1 + 1 + 0 + 0.5 + 0.5 + 1.827e-7 + 0.25) / 7)
    assert (report["wins"], report["ties"], report["losses"], report["missing"]) == (2, 2, 3, 1)
    assert (report["ours"], report["theirs"], report["judge"]) == ("mine", "gpt4", "weighted")
    assert "7 of 8" in out and "46.43" in out
    again = cli("judge", "--annotations", tmp_path / "here" / "annotations.json")
    assert again[0] == 0 and again[1].splitlines() == out.splitlines()[:-1], "what it writes, it reads"


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
