"""Trains through other frameworks, one environment each, and writes the results into docs/support.md.

python tools/integrations [FRAMEWORK ...]            # or: make test-integrations
python tools/integrations --environments FOLDER      # folder of their environments, existing or new
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

import answers

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "support.md"
NOISES = ("plain", "none", "neft_uniform", "symnoise")
FRAMEWORKS = {
    "llamafactory": "llamafactory==0.9.5",
    "swift": "ms-swift==4.6.0",
    "axolotl": "axolotl==0.19.0",
    "unsloth": "unsloth==2026.10.9",
}
VERSIONS = """
from importlib.metadata import version
print(*(f"{name} {version(name)}" for name in "torch transformers trl peft datasets accelerate".split()), sep=", ")
"""
# Their wheels on the index are built for CUDA and cannot be imported with a CPU build of torch.
CUDA_ONLY = ("torchvision", "torchaudio")
BEGIN, END = "<!-- integrations: make test-integrations writes up to the end -->", "<!-- end of integrations -->"
HEAD = """
## Other frameworks

Made by `make test-integrations`, on a CPU. The shipped model trains 4 steps on shipped data through the framework's
own entry point. *none* is bit-equal to the framework alone; *rms* is the least and the largest over all documents,
over that of NEFTune's paper for a document of its length; padding and evaluation had no noise at all; *symnoise* made
twice the passes, and the framework's own counters of tokens stood as after one. Unsloth's *written* rows are of the
trainer that it writes for GPUs, on a model of transformers'. The answers of [the chooser](choosing.md), of every
tuning and packing, train a small model as they stand there.

"""
COLUMNS = """
| framework | layout | tuning | none | rms | padding | evaluation | symnoise |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def python_of(name: str, environments: Path) -> Path:
    """Return the interpreter of a framework's environment, created if it is missing or has another version."""
    folder = environments / name
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    package, _, pinned = FRAMEWORKS[name].partition("==")
    command = [str(python), "-c", f"from importlib.metadata import version; print(version({package!r}))"]
    if subprocess.run(command, capture_output=True, text=True).stdout.strip() != pinned:
        torch = folder / "torch.txt"
        torch.write_text("torch==2.13.0\n", encoding="utf-8")
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(torch)]
        subprocess.run([*pip, "torch==2.13.0"], check=True)
        subprocess.run([*pip, FRAMEWORKS[name], "-e", f"{ROOT}[quantization]"], check=True)
        without_cuda(folder, python)
    return python


def without_cuda(folder: Path, python: Path) -> None:
    """Remove packages that cannot be imported on a CPU, so that other packages find them missing."""
    for package in CUDA_ONLY:
        command = [str(python), "-c", f"import {package}"]
        if subprocess.run(command, capture_output=True).returncode:
            for library in folder.glob(f"lib/*/site-packages/{package}/**/*.so"):
                library.unlink()  # torchaudio works without it
        if subprocess.run(command, capture_output=True).returncode:
            subprocess.run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", package], check=True)


def run(name: str, python: Path, limit: float) -> str:
    """Execute a framework's runs with output to its log, and return an error, or "" after success."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment["AXOLOTL_DO_NOT_TRACK"] = "1"
    log = log_of(name)
    log.parent.mkdir(exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        command = [str(python), str(HERE / f"on_{name}.py")]
        try:
            done = subprocess.run(
                command, cwd=log.parent, env=environment, stdout=file, stderr=subprocess.STDOUT, timeout=limit
            )
        except subprocess.TimeoutExpired:
            return f"stopped after {limit:.0f} s"
    return f"exit status {done.returncode}, see {log}" if done.returncode else ""


def log_of(name: str) -> Path:
    return ROOT / "build" / f"integration-{name}.log"


def results_in(text: str) -> list[dict]:
    """Return the results in a log; a progress bar may precede them on a line."""
    read = json.JSONDecoder().raw_decode
    return [read(line.partition("RESULT ")[2])[0] for line in text.splitlines() if "RESULT {" in line]


def counters(log: list[dict]) -> dict[str, float]:
    """Return the token counters that a framework logged last; rates per second differ between runs."""
    last = {key: value for line in log for key, value in line.items()}
    return {k: v for k, v in last.items() if "token" in k and "sec" not in k and "acc" not in k}


def judge(runs: dict[str, dict]) -> dict[str, str]:
    """Return the verdict on one layout and tuning: which properties hold, and which do not."""
    plain, none, one, two = (runs[name] for name in NOISES)
    low, high = one["ratios"]
    counted = counters(plain["log"])
    losses = [next(line["loss"] for line in each["log"] if "loss" in line) for each in (plain, two)]
    once = (
        counters(two["log"]) == counted
        and two["passes"] == 2 * plain["passes"]
        and 0.7 < float(losses[1]) / float(losses[0]) < 1.5
    )
    noted = one["noise.json"] and any("noise/rms" in line for line in one["log"])
    return {
        "none": "bit-equal" if none["weights"] == plain["weights"] != one["weights"] else "DIFFERS",
        "rms": f"{low:.3f} to {high:.3f}, {one['documents']} documents, up to {one['most_documents_in_a_row']} a row"
        + ("" if 0.95 <= low <= high <= 1.05 and noted else " WRONG"),
        "padding": clean(one["padding"], one["paddings"]),
        "evaluation": clean(max(one["evaluation"], two["evaluation"]), one["evaluations"]),
        "symnoise": ("works" if counted else "works, no tokens counted") if once else "WRONG",
    }


def clean(most: float, looked_at: int) -> str:
    return "none there" if not looked_at else "clean" if most == 0 else f"NOISE {most:.2g}"


def rows(name: str, results: list[dict], ended: str) -> list[str]:
    """Return the table rows of one framework."""
    by_case: dict[tuple[str, str], dict[str, dict]] = {}
    for each in results:
        by_case.setdefault((each["layout"], each["tuning"]), {})[each["noise"]] = each
    lines = [
        f"| {name} | {layout} | {tuning} | " + " | ".join(judge(runs).values()) + " |"
        for (layout, tuning), runs in by_case.items()
        if len(runs) == len(NOISES)
    ]
    return lines + ([f"| {name} | not finished: {ended} | | | | | | |"] if ended else [])


def write(name: str, lines: list[str], said: str) -> None:
    """Replace a framework's rows and notes on the page; those of other frameworks are kept."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, old = text.partition(BEGIN)
    others = [
        line for line in old.splitlines() if line[:2] in ("| ", "* ") and line.split()[1].rstrip(":") in FRAMEWORKS
    ]
    others = [line for line in others if line.split()[1].rstrip(":") != name]
    today = datetime.datetime.now(datetime.timezone.utc).date()
    told = f"* {name}: {FRAMEWORKS[name].replace('==', ' ')}, {said}; {today}"
    kept = sorted([*others, told, *lines])
    all_told, table = ("\n".join(line for line in kept if line[0] == kind) for kind in "*|")
    PAGE.write_text(f"{before.rstrip()}\n\n{BEGIN}\n{HEAD}{all_told}\n{COLUMNS}{table}\n\n{END}\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frameworks", nargs="*", metavar="FRAMEWORK", help=", ".join(FRAMEWORKS))
    parser.add_argument("--environments", type=Path, default=ROOT / "build" / "integrations")
    parser.add_argument("--report", action="store_true", help="run nothing; write the page from the last logs")
    parser.add_argument("--limit", type=float, default=3600, help="seconds for a framework's runs")
    options = parser.parse_args()
    lines = []
    for name in options.frameworks or FRAMEWORKS:
        began = time.monotonic()
        python = python_of(name, options.environments)
        command = [str(python), "-c", VERSIONS]
        versions = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        ended = "" if options.report else run(name, python, options.limit)
        found = rows(name, results_in(log_of(name).read_text(encoding="utf-8")), ended)
        versions += "; " + answers.told(name, python, log_of(f"{name}-answers"))
        print(name, f"{time.monotonic() - began:.0f} s", versions, *found, sep="\n", flush=True)
        write(name, found, versions)
        lines += [versions, *found]
    sys.exit(any(word in line for line in lines for word in ("WRONG", "DIFFERS", "NOISE", "not finished")))


if __name__ == "__main__":
    main()
