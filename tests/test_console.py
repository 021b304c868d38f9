"""Tables fit the terminal, with and without one; what is quiet."""

import warnings
from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from neft_zoo.cli.main import main
from neft_zoo.console import fitted_markdown, plain_table, printable, quiet, show_table
from neft_zoo.doctor.report import KINDS, DoctorReport, Layout, Measures, show
from neft_zoo.errors import DataWarning

ROWS = [("name", "loss", "what it does"), ("none", "2.5", "word " * 30), ("neft_uniform", "10.25", "adds")]


def test_a_plain_table_is_as_wide_as_it_may_be():
    lines = plain_table(ROWS, numbers=[1], width=60).split("\n")
    assert max(map(len, lines)) <= 60
    assert lines[0].split() == ["name", "loss", "what", "it", "does"]
    assert lines[1].index("2.5") + 3 == lines[-1].index("10.25") + 5, "numbers end in one column"
    assert " ".join(lines[1:-1]).split() == ["none", "2.5", *["word"] * 30]


def test_no_box_is_drawn_where_there_is_no_terminal(capsys):
    show_table(ROWS)
    told = capsys.readouterr().out
    assert "│" not in told and "neft_uniform" in told


HOSTILE = "\x1b[2Jname\x1b]0;title\x07\u202e\nsecond line\r\x00"


def test_a_terminal_is_sent_no_control_characters(capsys):
    show_table([("name", "loss"), (HOSTILE, "[bold]1[/bold]")])
    shown = capsys.readouterr().out
    assert printable(shown.replace("\n", "")) == shown.replace("\n", "") and "second line" in shown
    assert "[bold]1[/bold]" in shown, "nor is markup obeyed"
    assert len(shown.splitlines()) == 2


CELL = st.text("abc de-fgh/12.", min_size=1, max_size=60).map(lambda text: " ".join(text.split()) or "x")


@given(st.integers(2, 12).flatmap(lambda n: st.lists(st.lists(CELL, min_size=n, max_size=n), min_size=1, max_size=5)))
def test_any_table_fits_80_columns_and_loses_nothing(rows):
    lines = plain_table(rows, width=80).split("\n")
    assert max(map(len, lines)) <= 80
    shown = Counter("".join(lines).replace(" ", ""))
    assert shown >= Counter("".join(map("".join, rows)).replace(" ", "")), "the first column may be repeated"


def test_markdown_fits_a_terminal_and_stays_markdown_in_a_pipe(monkeypatch):
    table = f"| row | {'loss, ' * 12} |\n| --- | ---: |\n| {'neft_uniform ' * 9} | -1.5 |\n"
    text = f"# A title\n\n{table}\n{'a long sentence ' * 20}\n"
    monkeypatch.delenv("COLUMNS", raising=False)
    assert fitted_markdown(text) == text
    monkeypatch.setenv("COLUMNS", "80")
    lines = fitted_markdown(text).splitlines()
    assert max(map(len, lines)) <= 80 and lines[:2] == ["# A title", ""]
    assert not any(set(line) <= set("- ") and line for line in lines)
    assert "-1.5" in "".join(lines) and "".join(lines).count("neft_uniform") == 9


LONG = {"name": "token_relative_to_the_norms_of_a_sentence", "alpha": 5.0}


def test_what_doctor_prints_fits_80_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    layout = Layout(4, 8, 16384, 63, 0.5, "bfd", True, "bfloat16")
    measured = {kind: Measures(0.078, 0.127, 0.173, 0.1, 0.118, 17.878, 1.0, 0.55, 0.999, 12.0) for kind in KINDS}
    name = "an-organisation-with-a-name/a-model-with-a-long-name-of-7-billion-parameters-instruct"
    show(DoctorReport(name, False, LONG, 5.0, layout, "real weights", measured))
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80 and "0.078 / 0.127 / 0.173" in said


def test_a_report_fits_80_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["report", str(Path(__file__).parents[1] / "docs" / "results" / "gsm8k")]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_what_is_quiet_still_says_what_becomes_of_the_data():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with quiet():
            warnings.warn("a library's remark", stacklevel=1)
            warnings.warn("2 of 3 records are dropped", DataWarning, stacklevel=1)
    assert [str(each.message) for each in caught] == ["2 of 3 records are dropped"]
