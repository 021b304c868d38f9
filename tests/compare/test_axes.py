"""Ranges of axes and the frontier over cost."""

import made_up
import pytest

from neft_zoo.compare import loading
from neft_zoo.compare.axes import axis_range, frontier, ranges
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
    chosen = frontier(experiment.rows, column)
    assert chosen and [row.compute for row in chosen] == sorted(row.compute for row in chosen)
    for row in chosen:
        own = row.cells[column].difference
        cheaper = [each for each in experiment.rows if each.compute is not None and each.compute <= row.compute]
        others = [each.cells[column].difference for each in cheaper if column in each.cells]
        assert own is None or all(each is None or own.mean <= each.mean for each in others)


def test_a_metric_without_a_good_direction_has_no_frontier(experiment):
    assert frontier(experiment.rows, ("train_loss", "end")) == []


def test_every_metric_has_an_axis(experiment):
    found = ranges(experiment, experiment.rows)
    assert set(found) == {name for name, _ in experiment.columns} and all(low < high for low, high in found.values())
