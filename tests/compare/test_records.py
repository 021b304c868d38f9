"""Records of runs: what is written is read back, byte for byte."""

import json
from pathlib import Path

import pytest

from neft_zoo import NoiseError
from neft_zoo.compare.records import RunRecord
from neft_zoo.compare.results import read, write

COMMITTED = Path(__file__).parents[2] / "docs/results"


def test_committed_results_are_read_and_written_back_byte_for_byte(tmp_path):
    paths = sorted(COMMITTED.rglob("*.json"))
    assert len(paths) >= 404
    for path in paths:
        write(tmp_path / "again.json", read(path))
        assert (tmp_path / "again.json").read_bytes() == path.read_bytes(), path


def test_what_is_not_known_is_left_out(tmp_path):
    path = next(COMMITTED.rglob("*.json"))
    values = json.loads(path.read_text())
    for name in ("commit", "evaluation", "end", "best", "measuring_s"):
        values.pop(name, None)
    record = RunRecord.from_dict(values)
    assert record.to_dict() == values and record.at("end") is None and record.commit is None
    values["history"][0]["test_loss"] = None
    point = RunRecord.from_dict(values).history[0]
    assert point.metrics["test_loss"] is None
    with pytest.raises(KeyError):
        point["test_loss"]


@pytest.mark.parametrize("key", ["recipe", "history", "seed", "status"])
def test_a_file_that_lacks_a_key_is_named(tmp_path, key):
    values = json.loads(next(COMMITTED.rglob("*.json")).read_text())
    del values[key]
    (tmp_path / "run.json").write_text(json.dumps(values))
    with pytest.raises(NoiseError, match="run.json must hold the result of a run in format 1"):
        read(tmp_path / "run.json")


def with_value(values, place, value):
    """Return a copy of a run's values with the one at a dotted place changed."""
    key, _, rest = place.partition(".")
    return {**values, key: with_value(values[key], rest, value) if rest else value}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("seed", "1"),
        ("seed", True),
        ("noise", None),
        ("noise", {"alpha": 5}),
        ("passes", None),
        ("row", []),
        ("status", "done"),
        ("tokens", "many"),
        ("cpu_s", "10"),
        ("wall_s", 10**400),
        ("recipe.hash", 1),
        ("evaluation", "x"),
        ("evaluation", {"test_words": "x"}),
        ("end", None),
        ("end.test_loss", "x"),
        ("end.test_loss", None),
        ("history", [{"step": 1, "epoch": "x"}]),
        ("record_losses", "x"),
        ("record_losses", {"end": [1.0]}),
        ("record_losses.tokens", None),
        ("record_losses.tokens", [1]),
        ("margins", {"test_loss": "0.01"}),
        ("margins", {"test_loss": -1}),
        ("margins", {"test_lost": 0.01}),
    ],
)
def test_a_value_that_no_run_has_is_refused(tmp_path, place, value):
    values = json.loads(next(COMMITTED.rglob("dolly/none-*-s0.json")).read_text())
    (tmp_path / "run.json").write_text(json.dumps(with_value(values, place, value)))
    field = place.partition(".")[0]
    with pytest.raises(
        NoiseError, match=f"run.json must hold the result of a run in format 1, got ({field} |something)"
    ):
        read(tmp_path / "run.json")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("place", ["end.test_loss", "margins.test_loss"])
def test_a_number_that_is_not_finite_is_refused(tmp_path, number, place):
    values = json.loads(next(COMMITTED.rglob("dolly/none-*-s0.json")).read_text()) | {"margins": {}}
    text = json.dumps(with_value(values, place, "here"))
    (tmp_path / "run.json").write_text(text.replace('"here"', number))
    with pytest.raises(NoiseError, match="run.json must hold the result of a run"):
        read(tmp_path / "run.json")


def test_a_failed_run_may_lack_all_that_was_not_measured(tmp_path):
    values = json.loads(next(COMMITTED.rglob("dolly/none-*-s0.json")).read_text())
    for name in ("end", "best", "steps", "cpu_s", "wall_s", "tokens", "record_losses", "evaluation"):
        values.pop(name)
    failed = {**values, "status": "failed", "error": "test_loss must be finite, got nan at step 5."}
    failed["history"][-1]["test_loss"] = None
    (tmp_path / "run.json").write_text(json.dumps(failed))
    assert read(tmp_path / "run.json").history[-1].metrics["test_loss"] is None
