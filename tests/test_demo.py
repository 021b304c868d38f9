"""The demo: three trainings side by side, in one table and one plot."""

from pathlib import Path

import pytest

QUICKSTART = Path(__file__).parents[1] / "recipes" / "quickstart"


def test_the_demo_trains_without_noise_with_it_and_for_half_as_long(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(QUICKSTART))
    monkeypatch.setenv("COLUMNS", "120")
    import demo

    monkeypatch.setattr("sys.argv", ["demo.py", "--records", "32", "--epochs", "2", "--output", str(tmp_path)])
    told = {}
    monkeypatch.setattr(demo, "show", lambda runs, show=demo.show: (told.update(runs), show(runs)))
    demo.main()
    assert list(told) == ["none", "neft_uniform", "none, half as long"]
    epochs = {name: [epoch for epoch, _ in run["test"]] for name, run in told.items()}
    assert epochs["none"] == epochs["neft_uniform"] == [1, 2] and epochs["none, half as long"] == [1]
    one, *_, half = (run["test"][0][1] for run in told.values())
    assert one != half, "a schedule of its own"
    assert told["none"]["rms"] is told["none, half as long"]["rms"] is None
    out, err = capsys.readouterr()
    assert (tmp_path / "loss.png").stat().st_size > 10_000 and "loss.png" in out
    assert [line for line in out.splitlines() if "none, half as long" in line] and "neft_uniform" in out
    assert "{'loss'" not in out + err and "Traceback" not in err
