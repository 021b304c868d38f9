"""Reading a tree of results, with evaluations that were made later."""

import json

import made_up
import pytest

from neft_zoo import NoiseError
from neft_zoo.compare import loading


@pytest.fixture
def folder(tmp_path):
    """Return results without evaluations, and those of two rows at two seeds evaluated later."""
    losses = made_up.write(tmp_path / "data", answers=False)
    later = made_up.write(tmp_path / "evaluated/data", seeds=2, effects={"none": (0, 0, 0, 0)})
    made_up.write(tmp_path / "other", effects={"none": (0, 0, 0, 0)})
    for path in later.glob("*.json"):
        run = json.loads((losses / path.name).read_text())
        evaluated = {"recipe": {"name": "r", "hash": "with"}, "evaluation": {"test_words": 40.0}}
        config = {**run["config"], "evaluation": {"answers": 8}}
        path.write_text(json.dumps({**run, **evaluated, "config": config}))
    return tmp_path


def test_later_evaluations_are_those_of_the_same_runs(folder):
    found, _ = loading.load(folder)
    assert [each.name for each in found] == ["data", "other"]
    none = found[0].none
    assert none.values("test_words", "end") == {0: 40.0, 1: 40.0}
    assert list(none.values("test_loss", "end")) == [0, 1, 2], "a seed without evaluation counts for the losses"
    assert [path.parts[1] for path, _ in none.runs] == ["evaluated", "evaluated", "data"]
    assert len(found[0].rows) == len(made_up.EFFECTS)


def test_another_run_of_the_same_name_is_an_experiment_of_its_own(folder):
    path = next((folder / "evaluated/data").glob("*.json"))
    run = json.loads(path.read_text())
    run["history"][0]["test_loss"] += 1e-6
    path.write_text(json.dumps(run))
    assert [each.name for each in loading.load(folder)[0]] == ["data", "evaluated/data", "other"]


def test_experiments_have_keys_of_their_own(tmp_path):
    for place in ("a_b", "a/b", "a-b"):
        made_up.write(tmp_path / place, effects={"none": (0, 0, 0, 0)})
    found, _ = loading.load(tmp_path)
    assert len({each.key for each in found}) == 3, "files are named by them"
    assert [each.name for each in found] == ["a-b", "a/b (r hFal)", "a_b (r hFal 2)"]


def test_two_results_of_a_row_and_seed_are_refused_as_in_a_report(tmp_path):
    folder = made_up.write(tmp_path / "a", effects={"none": (0, 0, 0, 0)})
    path = next(folder.glob("*-s0.json"))
    (folder / "copy.json").write_text(path.read_text())
    with pytest.raises(NoiseError, match=f"must hold one result of a row and seed, got copy.json and {path.name}"):
        loading.load(tmp_path)
