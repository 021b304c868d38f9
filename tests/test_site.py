"""What the site is made of: results, findings, formulas and the playground's strategies, without building it."""

import json
import re
from statistics import fmean

import made_up
import pytest
from made_up import DOCS, EFFECTS

from neft_zoo import registry
from neft_zoo.compare.results import read
from neft_zoo.compare.summary import summarize
from neft_zoo.pages import prose

pytest.importorskip("latex2mathml", reason="the site needs neft-zoo[docs]")
from builder import compare, entries, findings, formulas, outcomes, playground, snippets, strength  # noqa: E402
from builder.metrics import METRICS, metric, ordered  # noqa: E402
from builder.tables import number  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_up.committed(tmp_path_factory.mktemp("site") / "results")


@pytest.fixture(scope="module")
def experiments(folder):
    return outcomes.load(folder)[0]


def test_experiments_are_told_apart_by_data_set_and_budget(folder):
    found, notes = outcomes.load(folder)
    assert [each.title for each in found] == ["made-up, equal steps", "made-up, equal compute"]
    assert [row.label for row in found[0].rows] == [
        "none",
        "lat",
        "neft_gaussian",
        "neft_uniform alpha=5",
        "neft_uniform alpha=10",
        "symnoise",
        "label_smoothing",
    ]
    assert len(notes) == 1 and "half, equal compute" in notes[0]


FOLDERS = ["gpu/dolly", "gpu/dolly-compute", "compute/gpu/dolly", "gpu/dolly_compute-matched"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_of_one_data_set(folder):
    assert outcomes.name_of(folder) == "gpu/dolly"


def test_numbers_are_those_of_a_report(folder, experiments):
    records = [read(path) for path in (folder / "made-up").glob("*.json")]
    lines = {(line.row, line.metric): line for line in summarize(records).lines}
    for row in experiments[0].rows:
        for point in ("end", "best"):
            cell, line = row.cells.get(("test_loss", point)), lines[row.label, f"test_loss {point}"]
            if cell is None:
                assert line.mean is None
                continue
            assert cell.mean == line.mean and cell.difference == line.difference and row.compute == line.compute


def test_what_is_derived_and_what_comes_from_the_evaluation(experiments):
    row = experiments[0].find("neft_uniform", alpha=5)
    records = [record for _, record in row.runs]
    gaps = [record["end"]["test_loss"] - record["end"]["train_loss"] for record in records]
    assert row.cells["gap", "end"].mean == pytest.approx(fmean(gaps))
    assert row.cells["test_words", "end"].mean == pytest.approx(
        fmean(record["evaluation"]["test_words"] for record in records)
    )
    assert ("test_log_diversity", "end") not in row.cells, "null was measured by nobody"
    assert row.cells["wall_s", "end"].corrected is None, "what a run costs is not tested"
    assert row.cells["test_loss", "end"].verdict == "lower: better"


def test_a_row_whose_runs_all_failed_has_no_numbers(experiments):
    row = experiments[0].find("lat")
    assert row.failed == 3 and row.cells == {}
    assert "3 of 3 runs failed" in compare.page(experiments, [])
    assert "3 of 3 runs failed" in entries.measured("lat", experiments)


def test_metrics_nobody_described_are_shown_by_name():
    assert metric("odd_thing").label == "odd thing" and metric("odd_thing").better is None
    assert metric("end_blocked_words").label == "answer length, end blocked"
    assert metric("noise_5_loss").unit == "nats per token"
    names = ordered({"wall_s", "odd_thing", "test_loss", "test_words"})
    assert names == ["test_loss", "test_words", "odd_thing", "wall_s"]
    assert set(ordered(set(METRICS))) == set(METRICS)


def test_the_rule_of_the_findings(experiments):
    said = {claim.title: findings.judge(claim, experiments[0]).status for claim in findings.CLAIMS}
    assert said["Train loss goes up"] == findings.YES
    assert said["Held-out loss goes down"] == findings.YES
    assert said["Outputs get longer"] == findings.NO
    assert said["Repetition stays the same"] == findings.YES
    assert said["Uniform noise beats Gaussian noise"] == findings.NO


def judged(tmp_path, title, changes=None, **more):
    effects = {**EFFECTS, **(changes or {})}
    found, _ = outcomes.load(made_up.write(tmp_path / "results/r", effects=effects, **more).parent)
    claim = next(claim for claim in findings.CLAIMS if claim.title.startswith(title))
    return findings.judge(claim, found[0])


def test_better_at_the_end_only_is_not_reproduced(tmp_path):
    judgement = judged(tmp_path, "Held-out", {"neft_uniform 5": (-0.08, 0.02, 0.2, 0.0)})
    assert judgement.status == findings.NO
    assert judgement.why == "at the end yes; at the best point no"


def test_two_seeds_are_too_few(tmp_path):
    assert judged(tmp_path, "Held-out", seeds=2).status == findings.UNKNOWN


def test_what_was_not_measured_is_not_testable(tmp_path):
    judgement = judged(tmp_path, "Outputs", answers=False)
    assert judgement.status == findings.UNKNOWN and "not measured" in judgement.why


def test_nothing_learned_by_heart_cannot_be_unlearned(tmp_path):
    floor = {name: effect and (*effect[:3], effect[3] - 0.2) for name, effect in EFFECTS.items()}
    assert judged(tmp_path, "Answers repeat training answers less (ROUGE-L)", floor).status == findings.UNKNOWN


def test_without_results_every_page_says_not_run(tmp_path):
    found, notes = outcomes.load(tmp_path / "missing")
    assert found == [] and notes == []
    for text in (compare.page([], []), findings.page([]), entries.results("symnoise", []), entries.overview([])):
        assert "not run" in text.lower()
    assert snippets.fill("{{ headline }}\n\n{{ measured symnoise }}", []).lower().count("not run") == 2


def test_written_pages_ask_for_what_exists(experiments):
    for page in DOCS.rglob("*.md"):
        asked = [found[1] for found in snippets.ASKED.finditer(page.read_text(encoding="utf-8"))]
        assert set(asked) <= set(snippets.KNOWN), page
    with pytest.raises(KeyError):
        snippets.fill("{{ nonsense }}", experiments)


def test_written_pages_name_strategies_and_controls_that_exist():
    known = {*registry.builtin_names(), *(path.stem for path in (DOCS.parent / "recipes/controls").glob("*.yaml"))}
    text = (DOCS / "choosing.md").read_text(encoding="utf-8")
    named = {name.rstrip("*") for found in re.findall(r"\{\{ measured (.+?) \}\}", text) for name in found.split()}
    assert named and named <= known


def test_measured_shows_defaults_or_with_a_star_every_row(experiments):
    assert "alpha=10" not in snippets.fill("{{ measured neft_uniform }}", experiments)
    assert "alpha=10" in snippets.fill("{{ measured neft_uniform* }}", experiments)
    assert "label_smoothing" in snippets.fill("{{ measured label_smoothing }}", experiments)


GRID = {
    f"neft_uniform {alpha}": (end, 0.01, 0.2, 0.0) for alpha, end in ((1, -0.02), (5, -0.08), (10, -0.1), (30, 0.3))
}


def strengths(folder, sweep=None, grid=GRID):
    """Return what the page says of a grid of alphas, and of a sweep where there is one."""
    made_up.write(folder / "results" / "set", effects={"none": made_up.EFFECTS["none"], **grid})
    if sweep:
        (folder / "neft_uniform.json").write_text(json.dumps({"cpu_s": 31.2, **sweep}))
    found = outcomes.load(folder / "results")[0]
    return strength.compared(found, ["neft_uniform", "neft_gaussian"], folder)


def test_a_sweeps_pick_is_held_against_the_best_of_the_grid(tmp_path):
    text = strengths(tmp_path, {"low": 3.5, "pick": 6.1, "high": 13.6})
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows] == ["| alpha", "| ---", "| 1", "| 5", "| **10**", "| 30"]
    assert re.match(r"−0\.(09|10)", rows[4].split(" | ")[1]) and rows[4].endswith(" | 57 |") and "set, 3 seeds" in text
    told = (
        "picks 6.1 and says to search from 3.5 to 13.6: the best is inside, and 5, the grid's nearest to the pick, has"
    )
    share = re.search(re.escape(told) + r" (\d+)% of its gain", text)
    assert share and 74 <= int(share[1]) <= 86
    assert "took 228 s of CPU time in training alone, the sweep 31 s." in text and "neft_gaussian" not in text


def test_a_pick_that_misses_or_is_missing_is_said(tmp_path):
    text = strengths(tmp_path / "a", {"low": 0.5, "pick": 1.1, "high": 4.0})
    assert "search from 0.5 to 4: the best is outside, and 1, the grid's nearest" in text
    assert "The sweep was not run here." in strengths(tmp_path / "b")
    assert "found no strength" in strengths(tmp_path / "c", {"low": None, "pick": None, "high": None})
    worse = {name: (0.1 + abs(end), *rest) for name, (end, *rest) in GRID.items()}
    text = strengths(tmp_path / "d", {"low": 3.5, "pick": 6.1, "high": None}, worse)
    assert "No alpha of the grid gains." in text and "from 3.5 upward" in text and "of its gain" not in text


def test_runs_of_a_grid_that_are_missing_leave_fewer_seeds_or_no_table(tmp_path):
    strengths(tmp_path)
    paths = sorted((tmp_path / "results" / "set").glob("neft_uniform*-s2.json"))
    paths[0].unlink()
    (experiment,) = outcomes.load(tmp_path / "results")[0]
    assert "set, 2 seeds" in strength.compared([experiment], ["neft_uniform"], tmp_path)
    for path in (tmp_path / "results" / "set").glob("neft_uniform*-s[01].json"):
        path.unlink()
    for path in paths[2:]:
        path.unlink()
    assert strength.compared(outcomes.load(tmp_path / "results")[0], ["neft_uniform"], tmp_path) == ""
    assert snippets.fill("{{ strength neft_uniform }}", []) == snippets.NOT_RUN


def test_evidence_is_sorted_by_verdict(experiments):
    text = entries.measured("neft_uniform", experiments)
    sides = [text.partition("**For**")[2].partition("**Against**")[0], text.partition("**Against**")[2]]
    assert "alpha=10`, made-up, equal steps, test loss at the end" in sides[0]
    assert "alpha=10`, made-up, equal steps, test loss at the best point" in sides[1]


@pytest.mark.parametrize("name", registry.builtin_names())
def test_every_formula_becomes_mathml(name):
    text = formulas.render(prose(registry.entry(name)))
    assert "<math" in text and "$$" not in text and "\\" not in text[text.index("<math") : text.rindex("</math>")]


def test_formulas_in_code_stay():
    assert formulas.render("```\n$$x$$\n```\n`\\(y\\)`") == "```\n$$x$$\n```\n`\\(y\\)`"


def test_numbers():
    assert [number(-0.5, 2), number(-0.0001, 2, sign=True), number(None, 1)] == ["−0.50", "+0.00", "-"]


def test_the_playground_knows_every_closed_form():
    found = {each["label"]: each for each in json.loads(playground.script().partition(">")[2].rpartition("<")[0])}
    assert {"neft_uniform", "symnoise", "token_relative", "neft_gaussian match_rms: true"} <= set(found)
    assert not {"lat", "freelb", "none", "masked_thought"} & set(found)
    assert found["neft_scheduled"]["default"] == 10 and found["token_relative"]["argument"] == "rho"


def test_a_page_sets_apart_what_speaks_for_and_against():
    text = entries.page("symnoise", [])
    published = text.partition("### Published")[2].partition("###")[0]
    assert "\n\n**For:** its authors" in published and "\n\n**Against:** we know" in published
    assert text.index('<div class="plots">') > text.index("$$"), "formula, then pictures"
