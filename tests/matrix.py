"""The support matrix, from what the tests did: `pytest -m cell --matrix docs/support.md`, or `make matrix`.

A test marked `@pytest.mark.cell("Adapters", "{name}")` is evidence for a cell; its parameters fill the braces. A cell
works if all its tests pass. A test of a refusal hands the message to the fixture `refused`; a skipped one, its reason.
"""

from pathlib import Path

import pytest

HEAD = """# What is supported

Made by `make matrix` from the tests that are named; nothing in it is written by hand. *works*: the noise arrives at
its stated size, is gone in evaluation, and the run trains. *refused*: raised before training, with this message.

"""


def pytest_addoption(parser):
    parser.addoption("--matrix", type=Path, help="write the support matrix to this file")


def pytest_configure(config):
    config.addinivalue_line("markers", "cell(area, what): evidence for a cell of the support matrix")


def pytest_collection_modifyitems(items):
    for item in items:
        for marker in item.iter_markers("cell"):
            area, what = marker.args
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            item.user_properties.append(("cell", f"{area}|{what.format(**parameters)}"))


@pytest.fixture
def refused(request):
    """Return a function that takes what `pytest.raises` caught, for the cell to quote."""
    return lambda caught: request.node.user_properties.append(("refused", str(caught.value)))


def pytest_terminal_summary(terminalreporter):
    path = terminalreporter.config.getoption("matrix")
    if path is None:
        return
    cells = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.getreports(outcome):
            for name, cell in getattr(report, "user_properties", ()):
                if name == "cell" and (report.when == "call" or outcome != "passed"):
                    cells.setdefault(cell, []).append((outcome, verdict(report, outcome), report.nodeid))
    path.write_text(HEAD + "\n".join(tables(cells)))
    terminalreporter.write_line(f"{len(cells)} cells written to {path}")


def verdict(report, outcome):
    message = dict(report.user_properties).get("refused")
    if outcome == "passed":
        return "works" if message is None else f"refused: {message}"
    if outcome == "skipped":
        return f"not run here: {report.longrepr[2].removeprefix('Skipped: ')}"
    return "fails"


def tables(cells):
    """Return a table per area; the worst of a cell's tests is its verdict."""
    worst = ("failed", "error", "skipped", "passed")
    for area in dict.fromkeys(cell.split("|")[0] for cell in cells):
        yield f"## {area}\n\n| | | tests |\n| --- | --- | --- |"
        for cell, found in cells.items():
            if cell.split("|")[0] == area:
                told = min(found, key=lambda result: worst.index(result[0]))[1].replace("|", "\\|")
                files = ", ".join(sorted({node.split("::")[0] for *_, node in found}))
                yield f"| {cell.split('|')[1]} | {told} | {files} ({len(found)}) |"
        yield ""
