"""Ranges of axes and the frontier over cost."""

import made_up
import pytest

from neft_zoo.compare import loading, results
from neft_zoo.compare.axes import axis_range, from_none, frontier, ranges
from neft_zoo.compare.records import RunRecord
from neft_zoo.compare.statistics import Difference


def differences(*means):
    return [Difference((mean,), mean) for mean in means]


def test_one_row_far_off_does_not_squeeze_the_others():
    low, high = axis_range(differences(*(-0.01 * place for place in range(20)), 5.0), 3)
    assert high < 0.2 and low <= -0.19


def test_zero_is_always_on_the_axis():
    low, high = axis_range(differences(0.3, 0.31, 0.32), 3)
    assert low < 0 < high
    low, high = axis_range([], 3)
    assert low < 0 < high


def test_differences_below_what_tables_show_are_not_stretched():
    low, high = axis_range(differences(1e-7, 2e-7), 3)
    assert high - low >= 0.01 * 0.999


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return loading.load(made_up.committed(tmp_path_factory.mktemp("axes") / "results"))[0][0]


def test_nothing_of_at_most_its_compute_beats_a_row_of_the_frontier(experiment):
    column = ("test_loss", "end")
    chosen = frontier(experiment, column)
    assert chosen and [row.compute for row in chosen] == sorted(row.compute for row in chosen)
    for row in chosen:
        own = row.cells[column].difference
        cheaper = [each for each in experiment.rows if each.compute is not None and each.compute <= row.compute]
        others = [each.cells[column].difference for each in cheaper if column in each.cells]
        assert own is None or all(each is None or own.mean <= each.mean for each in others)


def test_a_metric_without_a_good_direction_has_no_frontier(experiment):
    assert frontier(experiment, ("train_loss", "end")) == []


@pytest.fixture
def matched(tmp_path):
    """Return an experiment at equal compute, where `symnoise` is better than plain training for as many steps."""
    folder = tmp_path / "matched"
    folder.mkdir()
    half = {"share": 0.5, "steps": 5, "tokens": 500}
    for seed in range(3):
        runs = [
            made_up.record("none", seed, (0.0, 0.0, 0.0, 0.0), matched=True),
            made_up.record("none", seed, (-0.1, 0.0, 0.0, 0.0), matched=True) | half | {"row": "half"},
            made_up.record("symnoise", seed, (-0.15, 0.0, 0.0, 0.0), matched=True) | half,
        ]
        del runs[0 if seed else 1]["evaluation"]["test_rouge_l"]  # no seed has it of both lengths
        for run in runs:
            results.write(folder / f"{run['row']}{seed}.json", RunRecord.from_dict(run))
    return loading.load(tmp_path)[0][0]


def test_rows_with_other_baselines_are_ranked_by_their_differences_from_none(matched):
    half, row = matched.rows[-1], matched.find("symnoise")
    assert row.baseline is half and row.cells["test_loss", "end"].difference.mean == pytest.approx(-0.05, abs=0.005)
    assert from_none(row, matched.none, ("test_loss", "end")).mean == pytest.approx(-0.15, abs=0.005)
    assert frontier(matched, ("test_loss", "end")) == [half, row]
    assert half not in frontier(matched, ("test_rouge_l", "end")), "it has no difference from none"
    low, _ = ranges(matched, [row], from_none)["test_loss"]
    assert low < -0.15 < ranges(matched, [row])["test_loss"][0]


def test_files_hold_what_is_drawn_of_rows_with_other_baselines(matched):
    pytest.importorskip("latex2mathml", reason="the site needs neft-zoo[docs]")
    from builder import data

    made = data.described(matched)
    none, row, half = (row["cells"]["test_loss.end"] for row in made["rows"])
    assert row["from_none"][0] == pytest.approx(-0.15, abs=0.005) and row["front"] == half["front"] == 1
    assert row["diff"] == pytest.approx(-0.05, abs=0.005) and "from_none" not in {**none, **half}
    column = next(column for column in made["columns"] if column["key"] == "test_loss.end")
    assert column["from_none"][0] < -0.15


def test_every_metric_has_an_axis(experiment):
    found = ranges(experiment, experiment.rows)
    assert set(found) == {name for name, _ in experiment.columns} and all(low < high for low, high in found.values())
