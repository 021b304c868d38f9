"""Long work shows its progress wherever its output goes."""

import pytest

from neft_zoo.evaluation.progress import progress_bar


@pytest.fixture
def minutes(monkeypatch):
    """A clock that only the test moves on, in minutes."""
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return lambda many: now.__setitem__(0, now[0] + 60 * many)


def test_a_file_gets_a_line_a_minute(minutes, capsys):
    for _ in progress_bar(range(10), "answers", total=10):
        minutes(0.5)
    assert capsys.readouterr().err.splitlines() == [f"neft-zoo: answers: {done} of 10" for done in (2, 4, 6, 8)]
    for _ in progress_bar(range(10), "answers", total=10):
        minutes(0.05)
    assert capsys.readouterr().err == ""
    for _ in progress_bar(range(3), "answers", total=3, shown=False):
        minutes(5)
    assert capsys.readouterr().err == ""


def test_work_that_goes_on_counts_what_was_done_before(minutes, capsys):
    with progress_bar(None, "verdicts", total=9, initial=4) as bar:
        for _ in range(5):
            minutes(2)
            bar.update()
    assert capsys.readouterr().err.splitlines() == [f"neft-zoo: verdicts: {done} of 9" for done in (5, 6, 7, 8)]


def test_work_that_fails_says_nothing_more(minutes, capsys):
    with pytest.raises(ValueError), progress_bar(None, "answers", total=4) as bar:
        bar.update()
        minutes(2)
        raise ValueError
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    list(progress_bar(range(4), "answers", total=4))
    assert "answers:   0%" in capsys.readouterr().err
