"""Tables fit the terminal, with and without one."""

from neft_zoo.console import plain_table, printable, show_table

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
