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
