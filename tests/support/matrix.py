"""The support matrix, from what the tests did: `pytest -m cell --matrix=docs/support.md`, or `make matrix`.

With files, as in `pytest -m cell --matrix=docs/support.md tests/training/test_peft.py`, only the rows of these change.

A test marked `@pytest.mark.cell("Adapters", "{name}")` is evidence for a cell; its parameters fill the braces. A cell
works if all its tests pass. A test of a refusal hands the message to the fixture `refused`; a skipped one, its reason.
"""

from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pytest

# Of the config: every marked cell that was collected with the files of its tests, and all files that were collected.
CELLS, FILES = pytest.StashKey(), pytest.StashKey()
HEAD = """# What is supported

Made by `make matrix` from the tests that are named; nothing in it is written by hand. *works*: all of them pass.
*refused*: one error with this message. *not run here*: why. Every run is a real one on a tiny model, on {device}, with
{versions}. The oldest supported versions, found by running and exercised by `make test-oldest`, are {oldest}.

"""
# What `make test-integrations` writes below.
FRAMEWORKS = "<!-- integrations"
NOT_RUN = "not run here: since it is new or takes long; make matrix runs all"
OLDEST = Path(__file__).resolve().parents[2] / "constraints-oldest.txt"
# The areas of the page in its order, and what a cell that works says.
AREAS = {
    "Batch layouts": "Every document has noise of its own size, that of its own n tokens; padding has none.",
    "Adapters": "Noise arrives under the adapter; it trains, is saved as plain PEFT, and loads as such.",
    "Every trainer of TRL": "Given to `enable()`: noise of its size in each document where the policy is trained; "
    "teachers, references, decoding and padding are clean.",
    "Trainers": "Noise is in the pass that trains; without strength a trainer is the stock one, bit for bit.",
    "The clean model": "No noise there, to the bit, while it is on in training.",
    "Architectures": "Noise of the stated size on text tokens only; evaluation and decoding are clean; TRL trains it.",
    "Causal language models of transformers": "Each that AutoModelForCausalLM knows, tiny and untrained, with its own "
    "loss: neft_uniform, hype and r3f, with r_drop where the model has dropout, give the loss and gradients of the "
    "model itself with the same noise added by hand and its own logits compared.",
    "Causal language models, noise on layers": "Of those, the ones in which layers take something else than one state "
    "per token; noise on the embedding is right there.",
    "Precision": "In the rows on rms and mean: the rms that is added is the noise's within 2 %, and its mean is 0.",
    "Faults": "No hook or attribute is left on the model, and the next run is that of a fresh model.",
    "Engines, dry run of the recipe": "The commands in a recipe's comments start the engine that it is for.",
    "Engines, two processes": "Trained as by DDP, and by one process with the same documents; every rank says which "
    "engine it runs in.",
    "torch.compile": "On 14 batches of different lengths; noise is there, and gone in evaluation.",
    "Doctor": "`neft-zoo doctor` measures the recipe.",
    "Mistakes of neftune_noise_alpha": "Each of these is wrong with transformers' hook, and not here.",
}
DISTRIBUTIONS = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes")


def pytest_addoption(parser):
    parser.addoption("--matrix", type=Path, help="write the support matrix to this file")


def pytest_configure(config):
    config.addinivalue_line("markers", "cell(area, what): evidence for a cell of the support matrix")
    config.stash[CELLS], config.stash[FILES] = {}, set()


@pytest.hookimpl(tryfirst=True)  # before -m leaves tests out
def pytest_collection_modifyitems(config, items):
    for item in items:
        config.stash[FILES].add(item.path.name)
        for marker in item.iter_markers("cell"):
            area, what = marker.args
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            what = what.format(**parameters)
            config.stash[CELLS].setdefault((area, what), set()).add(item.nodeid.split("::")[0])
            item.user_properties.append(("cell", f"{area}|{what}"))


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
                    cells.setdefault(tuple(cell.split("|", 1)), []).append(
                        (outcome, verdict(report, outcome), report.nodeid)
                    )
    page, begin, frameworks = (path.read_text(encoding="utf-8") if path.exists() else "").partition(FRAMEWORKS)
    marked, collected = (terminalreporter.config.stash[key] for key in (CELLS, FILES))
    kept = {cell: line for cell, line in lines_of(page).items() if cell not in cells}
    gone = {
        cell for cell in kept.keys() - marked if {Path(each).name for each in read_tables(page)[cell][1]} <= collected
    }
    kept = {cell: line for cell, line in kept.items() if cell not in gone}
    for cell, files in marked.items():
        if cell not in cells and cell not in kept:
            kept[cell] = f"| {escaped(cell[1])} | {NOT_RUN} | {', '.join(sorted(files))} (1) |"
    path.write_text(head() + "\n".join(tables(cells, kept)) + f"\n{begin}{frameworks}", encoding="utf-8")
    terminalreporter.write_line(f"{len(cells)} cells written to {path}")


def head():
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "a CPU"
    versions = {name: version(name) for name in DISTRIBUTIONS}
    told = [", ".join(f"{name} {each[name]}" for name in versions if name in each) for each in (versions, oldest())]
    return HEAD.format(device=device, versions=told[0], oldest=told[1])


def oldest(constraints=OLDEST):
    """Return the versions in a file of constraints, by distribution: the oldest that are supported."""
    lines = constraints.read_text(encoding="utf-8").splitlines()
    return dict(line.partition(";")[0].strip().split("==") for line in lines if "==" in line and line[0] != "#")


def verdict(report, outcome):
    message = dict(report.user_properties).get("refused")
    if outcome == "passed":
        return "works" if message is None else f"refused: {message}"
    if outcome == "skipped":
        return f"not run here: {report.longrepr[2].removeprefix('Skipped: ')}"
    return "fails"


def tables(cells, kept=()):
    """Yield a table per area; a cell tells what the worst of its tests do, or keeps its line."""
    worst = ("failed", "error", "skipped", "passed")
    cells = {**dict.fromkeys(kept), **cells}
    found = dict.fromkeys(area for area, _ in cells)
    for area in [*(area for area in AREAS if area in found), *(area for area in found if area not in AREAS)]:
        rows, counts = [], Counter()
        for cell in sorted(each for each in cells if each[0] == area):
            if cell in kept:
                rows.append(kept[cell])
                counts[_parts(kept[cell])[1].partition(":")[0]] += 1
                continue
            what, results = cell[1], cells[cell]
            lowest = min((outcome for outcome, _, _ in results), key=worst.index)
            told = "; ".join(sorted({text for outcome, text, _ in results if outcome == lowest}))
            files = ", ".join(sorted({node.split("::")[0] for *_, node in results}))
            counts[told.partition(":")[0]] += 1
            rows.append(f"| {escaped(what)} | {escaped(told)} | {files} ({len(results)}) |")
        counted = ", ".join(f"{told}: {count}" for told, count in counts.most_common())
        yield f"## {area}\n\n{AREAS.get(area, '')}\n\n{counted}.\n\n| what | verdict | tests |\n| --- | --- | --- |"
        yield from rows
        yield ""


def escaped(text):
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def lines_of(page):
    """Return the lines of a page's tables: (area, what), to the line."""
    lines, area = {}, None
    for line in page.splitlines():
        area = line.removeprefix("## ") if line.startswith("## ") else area
        what = _parts(line)[0]
        if line.startswith("| ") and what not in ("what", "---"):
            lines[area, what] = line
    return lines


def read_tables(text):
    """Return the rows of a page: (area, what), to verdict and files."""
    rows = {}
    for cell, line in lines_of(text.partition(FRAMEWORKS)[0]).items():
        _, told, files = _parts(line)
        rows[cell] = told, set(files.rpartition(" (")[0].split(", "))
    return rows


def _parts(line):
    parts = line.replace("\\|", "\0").strip("| ").split(" | ")
    return [part.replace("\0", "|").replace("&lt;", "<") for part in parts]
