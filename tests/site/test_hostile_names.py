"""What results hold is data: hostile names and messages stay text on pages, in Markdown, in CSV and in a terminal."""

import csv
import io
import json
import re
from pathlib import Path

import made_up
import pytest

pytest.importorskip("latex2mathml", reason="the site needs neft-zoo[docs]")
from builder import compare, data  # noqa: E402

from neft_zoo.compare.formats import csv_text
from neft_zoo.compare.records import RunRecord  # noqa: E402
from neft_zoo.compare.report import write_report  # noqa: E402
from neft_zoo.compare.results import path_of, write  # noqa: E402
from neft_zoo.compare.summary import summarize  # noqa: E402

SCRIPT = '"><img src=x onerror="window.hit=1"><script>window.hit=1</script>'
HOSTILE = (
    f"{SCRIPT}' ![](http://x/y.png) [click](javascript:window.hit=1) javascript:window.hit=1 $x^{{ | \x1b[31m\nred"
)
SHORT = "=cmd|'/c calc'!A1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return results in which recipe, control, metric, option and error are hostile."""
    made = tmp_path_factory.mktemp("hostile") / "r"
    made.mkdir()
    for name in ("none", "neft_uniform 5", "label_smoothing", "lat"):
        for seed in range(3):
            run = made_up.record(name, seed, made_up.EFFECTS[name])
            run["recipe"]["name"] = HOSTILE
            run["config"] |= {"dataset_name": HOSTILE}
            if run["status"] == "ok":
                run["evaluation"] |= {HOSTILE: 1.0 + seed, f"{SCRIPT}_loss": 2.0, SHORT: 1.0}
            else:
                run["error"] = HOSTILE
            if run["control"]:
                run["control"] = HOSTILE
            write(path_of(made, name.split()[0], name.encode().hex(), seed), RunRecord.from_dict(run))
    return made


def opened(browser, path):
    """Return whether a script ran on a page, and the page's text."""
    page = browser.new_page()
    try:
        page.goto(path.as_uri())
        return page.evaluate("window.hit"), page.inner_text("body")
    finally:
        page.close()


def test_no_script_runs_in_a_report(browser, folder):
    path = folder.parent / "report.html"
    write_report(folder, "html", path)
    hit, text = opened(browser, path)
    assert hit is None and SCRIPT in text
    assert "Content-Security-Policy" in path.read_text() and "<img" not in path.read_text()


def test_the_policy_of_a_report_stops_a_script_that_got_in(browser, folder):
    path = folder.parent / "spoilt.html"
    write_report(folder, "html", path)
    path.write_text(path.read_text().replace("<h1>", "<script>window.hit=1</script><img src=x onerror='hit=1'><h1>"))
    assert opened(browser, path)[0] is None


def test_no_script_runs_on_the_sites_page(browser, folder):
    experiment = summarize({Path(f"{SCRIPT}{run.seed}.json"): run for run in records(folder)}, HOSTILE)
    page = folder.parent / "compare.html"
    scripts = [(made_up.DOCS / f"assets/{name}.js").read_text() for name in ("charts", "compare")]
    for name, text in data.files([experiment]).items():
        (folder.parent / name).parent.mkdir(exist_ok=True)
        (folder.parent / name).write_text(text)
    inline = "".join(f"<script>{text}</script>" for text in scripts)
    shown = f"{compare.controls([experiment], experiment)}{compare.section(experiment)}"
    page.write_text(f"<!doctype html><meta charset=utf-8>{shown}{inline}")
    hit, text = opened(browser, page)
    assert hit is None and SCRIPT in text


def records(folder):
    return [RunRecord.from_dict(json.loads(path.read_text())) for path in sorted(folder.glob("none*.json"))]


def test_markdown_has_no_tags_and_no_control_characters(folder):
    text = write_report(folder, "md", None)
    assert "<script" not in text and "<img" not in text and "\x1b" not in text
    assert "![]\\(http" in text and not re.search(r"[^\\]\]\(", text), "no image is fetched, no link leads on"
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1


def test_a_spreadsheet_sees_no_formula(folder):
    lines = list(csv.DictReader(io.StringIO(write_report(folder, "csv", None))))
    assert {SHORT, f"'{SHORT}"} & {line["metric"] for line in lines} == {f"'{SHORT}"}
    assert not any(cell[:1] in "=@" for line in lines for cell in line.values() if cell)
    assert all(cell.isprintable() for line in lines for cell in line.values())


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r=", "\n@", "  =", "\N{FULLWIDTH EQUALS SIGN}"])
def test_no_start_of_a_formula_is_missed(start):
    assert csv_text(f"{start}HYPERLINK(A1)")[0] == "'" and csv_text("-") == "-" and csv_text("a=1") == "a=1"
