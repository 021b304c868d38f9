"""The committed support page has a row for every marked cell, and none is silent."""

import re
from pathlib import Path

import pytest
from matrix import CELLS, FILES, lines_of, oldest, read_tables, tables
from packaging.version import Version

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "support.md"


def test_the_page_has_the_cells_that_are_marked(request):
    marked = request.config.stash[CELLS]
    collected = request.config.stash[FILES]
    unmarked = {path.name for path in TESTS.rglob("test_*.py") if "mark.cell(" not in path.read_text(encoding="utf-8")}
    missing = {path.name for path in TESTS.rglob("test_*.py")} - collected - unmarked
    if missing:
        pytest.skip(f"needs all marked tests to be collected, {len(missing)} files were not")
    page = {cell: files for cell, (_, files) in read_tables(PAGE.read_text(encoding="utf-8")).items()}
    assert page == marked, "run make matrix"


def test_every_verdict_is_one_of_three():
    for cell, (told, _) in read_tables(PAGE.read_text(encoding="utf-8")).items():
        assert told == "works" or told.startswith(("refused: ", "not run here: ")), cell


def test_the_worst_result_is_the_verdict():
    passed = "passed", "works", "tests/test_x.py::one"
    cells = {
        ("Adapters", "a|b"): [passed, ("failed", "fails", "tests/test_y.py::two")],
        ("Adapters", "c"): [passed, ("skipped", "not run here: no", "t.py::z")],
        ("Batch layouts", "d"): [("passed", "refused: a <b>\nc | d", "tests/test_x.py::three")],
    }
    page = "\n".join(tables(cells))
    assert page.index("## Batch layouts") < page.index("## Adapters")
    assert "\n\nfails: 1, not run here: 1.\n\n" in page and "\n\nrefused: 1.\n\n" in page
    assert read_tables(page) == {
        ("Batch layouts", "d"): ("refused: a <b> c | d", {"tests/test_x.py"}),
        ("Adapters", "a|b"): ("fails", {"tests/test_x.py", "tests/test_y.py"}),
        ("Adapters", "c"): ("not run here: no", {"tests/test_x.py", "t.py"}),
    }


def test_rows_of_tests_that_did_not_run_stay():
    first = "\n".join(tables({("Adapters", "a|b"): [("passed", "works", "t.py::x"), ("passed", "works", "t.py::y")]}))
    later = "\n".join(tables({("Adapters", "c"): [("passed", "works", "u.py::z")]}, lines_of(first)))
    assert "| a\\|b | works | t.py (2) |" in later and set(read_tables(later)) == {
        ("Adapters", "a|b"),
        ("Adapters", "c"),
    }


def test_the_oldest_versions_are_those_that_the_package_asks_for():
    project = (TESTS.parent / "pyproject.toml").read_text(encoding="utf-8")
    asked = dict(re.findall(r'^    "(transformers|trl|peft|accelerate|datasets)>=([\d.]+)",$', project, re.M))
    run = [oldest(TESTS.parent / f"constraints-{name}.txt") for name in ("oldest", "frameworks")]
    lowest = {name: str(min(Version(each[name]) for each in run)) for name in asked}
    assert len(asked) == 5 and lowest == {name: str(Version(f"{least}.0")) for name, least in asked.items()}
