"""The table that holds the alpha finder's pick against a grid of alphas."""

import json
import re

import made_up
import pytest

from neft_zoo.compare import loading
from neft_zoo.compare.formats import interval_text

pytest.importorskip("latex2mathml", reason="the site needs neft-zoo[docs]")
from builder import snippets, strength  # noqa: E402

GRID = {
    f"neft_uniform {alpha}": (end, 0.01, 0.2, 0.0) for alpha, end in ((1, -0.02), (5, -0.08), (10, -0.1), (30, 0.3))
}


def strengths(folder, sweep=None, grid=GRID):
    """Return what the page says of a grid of alphas, and of a sweep where there is one."""
    made_up.write(folder / "results" / "set", effects={"none": made_up.EFFECTS["none"], **grid})
    if sweep:
        (folder / "neft_uniform.json").write_text(json.dumps({"cpu_s": 31.2, **sweep}))
    found = loading.load(folder / "results")[0]
    return strength.compared(found, ["neft_uniform", "neft_gaussian"], folder)


def test_a_sweeps_pick_is_held_against_the_best_of_the_grid(tmp_path):
    text = strengths(tmp_path, {"low": 3.5, "pick": 6.1, "high": 13.6})
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows] == ["| alpha", "| ---", "| 1", "| 5", "| **10**", "| 30"]
    assert re.match(r"−0\.(09|10)", rows[4].split(" | ")[1]) and rows[4].endswith(" | 57 |")
    assert "set, 3 common seeds" in text
    told = (
        "picks 6.1 and says to search from 3.5 to 13.6: the best is inside, and 5, the grid's nearest to the pick by "
        "ratio, has"
    )
    share = re.search(re.escape(told) + r" (\d+)% of its gain", text)
    assert share and 74 <= int(share[1]) <= 86
    assert "took 228 s of CPU time in training alone, the sweep 31 s." in text and "neft_gaussian" not in text


def test_rows_with_another_switch_do_not_hide_those_of_a_grid(tmp_path):
    """Each alpha was run with and without the energy of uniform noise."""
    effects = {f"neft_gaussian {a}{plain}": (-0.01 * a, 0, 0, 0) for a in (1, 5, 10) for plain in (" plain", "")}
    text = strengths(tmp_path, grid={**GRID, **effects})
    assert text.count("The best of the grid at the end of training is 10.") == 2 and "**`neft_gaussian`**" in text


def test_a_difference_has_the_verdict_that_it_has_on_all_pages(tmp_path):
    strengths(tmp_path)
    (experiment,) = loading.load(tmp_path / "results")[0]
    text = strength.compared([experiment], ["neft_uniform"], tmp_path)
    rows = [row for row in experiment.rows if row.entry == "neft_uniform"]
    for cell in (row.cells["test_loss", point] for row in rows for point in ("end", "best")):
        assert f"{interval_text(cell.difference, 3)}, {cell.verdict.text()}" in text


def test_a_pick_that_misses_or_is_missing_is_said(tmp_path):
    text = strengths(tmp_path / "a", {"low": 0.5, "pick": 1.1, "high": 4.0})
    assert "search from 0.5 to 4: the best is outside, and 1, the grid's nearest" in text
    assert "The sweep was not run here." in strengths(tmp_path / "b")
    assert "found no strength" in strengths(tmp_path / "c", {"low": None, "pick": None, "high": None})
    worse = {name: (0.1 + abs(end), *rest) for name, (end, *rest) in GRID.items()}
    text = strengths(tmp_path / "d", {"low": 3.5, "pick": 6.1, "high": None}, worse)
    assert (
        "No alpha of the grid is shown to be better than `none`." in text
        and "from 3.5 upward" in text
        and "of its gain" not in text
    )


def test_runs_of_a_grid_that_are_missing_leave_fewer_seeds_or_no_table(tmp_path):
    strengths(tmp_path)
    paths = sorted((tmp_path / "results" / "set").glob("neft_uniform*-s2.json"))
    paths[0].unlink()
    (experiment,) = loading.load(tmp_path / "results")[0]
    assert "set, 2 common seeds" in strength.compared([experiment], ["neft_uniform"], tmp_path)
    for path in (tmp_path / "results" / "set").glob("neft_uniform*-s[01].json"):
        path.unlink()
    for path in paths[2:]:
        path.unlink()
    assert strength.compared(loading.load(tmp_path / "results")[0], ["neft_uniform"], tmp_path) == ""
    assert snippets.fill("{{ strength neft_uniform }}", []) == snippets.NOT_RUN
