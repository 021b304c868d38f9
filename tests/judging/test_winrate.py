"""Win rates, plain and length-controlled: against published numbers, a package, and simulated truth."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from selection import quick

from neft_zoo import NoiseError
from neft_zoo.evaluation.intervals import wilson
from neft_zoo.judging import length_control
from neft_zoo.judging.logistic import fit, profile_interval, sigmoid
from neft_zoo.judging.pairs import Judgement, Pair
from neft_zoo.judging.winrate import summarize

PAIRS = [Pair(f"Question {i}?", f"a {'long ' * i}answer", "another answer") for i in range(9)]


def test_wilsons_interval():
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263 and 15 of 148.
    assert wilson(81 / 263, 263) == pytest.approx([0.2553, 0.3662], abs=1e-4)
    assert wilson(15 / 148, 148) == pytest.approx([0.0624, 0.1605], abs=1e-4)
    low, high = wilson(1.0, 20)
    assert 0.80 < low < 0.90 and high == pytest.approx(1)


def simulated(quality, bias, ratio, count, seed=0):
    """Return judgements and published data of a judge with a known bias towards the longer answer.

    Returns:
        The judgements, the published data, and the win rate in percent without the bias.
    """
    random = np.random.default_rng(seed)
    difficulty = random.normal(size=count)
    rows = [
        (sigmoid(np.array(bias * np.tanh(length) + 0.6 * hard)), length, hard, False)
        for hard in difficulty
        for length in random.normal(size=2)
    ]
    theirs = random.integers(200, 1500, count)
    ours = (theirs * ratio * np.exp(random.normal(0, 0.4, count))).astype(int)
    difference = (theirs - ours) / (theirs - ours).std(ddof=1)
    chance = sigmoid(quality + bias * np.tanh(difference) + 0.6 * difficulty)
    wins = (random.random(count) < chance).astype(float)
    judgements = [
        Judgement(Pair(str(i), "o" * int(a), "t" * int(b)), win)
        for i, (a, b, win) in enumerate(zip(ours, theirs, wins, strict=True))
    ]
    truth = 100 * sigmoid(quality + 0.6 * difficulty).mean()
    return judgements, length_control.Published(difficulty.tolist(), rows), truth


@pytest.mark.parametrize(
    ("quality", "bias", "ratio"),
    quick([(0.0, -1.5, 1.6), (-1.0, -1.0, 1.5), (0.8, -1.0, 0.6), (0.5, 0, 1.5)], (0.8, -1.0, 0.6)),
)
def test_the_length_controlled_rate_is_the_one_without_the_bias(quality, bias, ratio):
    judgements, published, truth = simulated(quality, bias, ratio, 1000)
    report = summarize(judgements, published)
    low, high = report.length_controlled_interval
    assert low < truth < high and high - low < 12 and report.length_controlled_note is None
    assert report.length_controlled == pytest.approx(truth, abs=4)
    if bias:
        assert abs(report.win_rate - truth) > 5, "the plain rate is off"


@pytest.mark.slow
@pytest.mark.parametrize(("quality", "count"), [(0.3, 300), (0.3, 100), (-2.5, 100), (3.0, 100)])
def test_the_intervals_hold_the_truth_about_as_often_as_they_say(quality, count):
    hits, plain, low_misses = 0, 0, 0
    for seed in range(100):
        judgements, published, truth = simulated(quality, -1.0, 1.3, count, seed)
        report = summarize(judgements, published)
        low, high = report.length_controlled_interval
        hits += low <= truth <= high
        low_misses += truth < low
        plain += report.win_rate_interval[0] < truth < report.win_rate_interval[1]
    assert 88 <= hits <= 100 and low_misses <= 9, (hits, low_misses)
    if abs(quality) < 1 and count == 300:
        assert plain < 60, plain


def test_profile_intervals_are_those_of_a_coin():
    """With a constant alone, the interval is the likelihood-ratio interval of a share, known by hand."""
    ones = np.ones((50, 1))
    for wins in (0, 5, 25, 50):
        targets = (np.arange(50) < wins).astype(float)
        low, high = profile_interval((ones, targets, np.ones(50)), ones)
        best = np.where(targets > 0, wins / 50, 1 - wins / 50)
        for end in (low, high):
            if 1e-6 < end < 1 - 1e-6:
                drop = np.log(best).sum() - np.log(np.where(targets > 0, end, 1 - end)).sum()
                assert drop == pytest.approx(3.841459 / 2, abs=1e-3)
        assert low <= wins / 50 <= high and 0.02 < high - low < 0.3
    assert low == pytest.approx(math.exp(-3.841459 / 2 / 50), abs=1e-5) and high > 1 - 1e-6, "all of 50 are won"


def test_there_is_no_length_controlled_rate_where_it_would_be_an_extrapolation():
    judgements, published, _ = simulated(0.5, -1.0, 1.3, 100)
    report = summarize(judgements)
    assert report.length_controlled is report.length_controlled_interval is None
    assert "difficulties" in report.length_controlled_note
    far = [(*row[:1], 2.0 + abs(row[1]), *row[2:]) for row in published.rows]
    shorter = [Judgement(Pair(str(i), "o" * 10, "t" * (500 + i)), i % 2) for i in range(100)]
    report = summarize(shorter, replace(published, rows=far))
    assert report.length_controlled is None and "equal lengths lie outside the data" in report.length_controlled_note
    assert summarize(shorter, published).length_controlled is not None, "the gamed baselines hold it"
    ungamed = replace(published, rows=[(*row[:3], True) for row in published.rows])
    assert "gamed baselines" in summarize(judgements, ungamed).length_controlled_note
    alike = [Judgement(Pair(str(i), "o" * 10, "t" * 500), i % 2) for i in range(100)]
    report = summarize(alike, published)
    assert report.length_controlled is None and "all lengths differ by as much" in report.length_controlled_note
    equal = [Judgement(Pair(str(i), "o" * 500, "t" * 500), i % 2) for i in range(100)]
    assert summarize(equal, published).length_controlled == pytest.approx(50, abs=3)


def test_lengths_are_those_of_the_judged_answers():
    report = summarize([Judgement(Pair("q", "xx", "yyyy"), 1.0), Judgement(Pair("r", "x" * 100, "y"), None)])
    assert (report.characters.ours, report.characters.theirs) == (2, 4)


def test_no_standard_error_where_all_judgements_agree():
    report = summarize([Judgement(pair, 1.0) for pair in PAIRS])
    assert report.standard_error is None and report.win_rate == 100 and report.win_rate_interval[0] < 75


def test_the_fit_is_the_minimum_of_the_penalized_loss():
    random = np.random.default_rng(1)
    features, targets, counts = random.normal(size=(80, 3)), random.random(80), random.random(80)

    def loss(weights, strength):
        scores = features @ weights
        return abs(weights).sum() + strength * ((np.logaddexp(0, scores) - targets * scores) * counts).sum()

    for strength in (0.01, 1.0, 100.0):
        found = fit(features, targets, counts, strength)
        steps = random.normal(size=(200, 3)) * 0.01
        assert all(loss(found, strength) <= loss(found + step, strength) + 1e-7 for step in steps)
    assert (abs(fit(features, targets, counts, 0.001)) < 1e-9).all(), "a strong penalty leaves nothing"


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


@pytest.mark.parametrize("lacking", quick([0, 2], 2))
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
        expected = float(row["standard_error"])
        # Judgements that all agree have no error that could be told.
        assert report["standard_error"] == (pytest.approx(expected, abs=0.01) if expected else None)


def test_few_or_onesided_judgements_have_no_invented_numbers():
    few = summarize([Judgement(pair, 1.0) for pair in PAIRS[:9]], length_control.Published([0.0] * 9, []))
    assert few.length_controlled is None and few.win_rate == 100
    assert few.length_controlled_note == "needs at least 10 judgements"
    judgements, published, _ = simulated(0.0, -1.0, 1.0, 100)
    many = summarize([replace(each, preference=1.0) for each in judgements], published)
    low, high = many.length_controlled_interval
    assert 80 < low < 99 < many.length_controlled <= high and many.win_rate_interval[0] < 97, (
        "100 wins are not certainty"
    )
    with pytest.raises(NoiseError, match="all 2 are missing"):
        summarize([Judgement(pair, None) for pair in PAIRS[:2]])


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
