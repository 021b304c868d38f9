"""Resolve the package's requirements together with those of other frameworks, and print a table: `make resolve`.

pip resolves from metadata in a scratch environment, and stops before downloading. For wheels whose index serves their
metadata separately (PEP 658) this takes kilobytes; a package published only as source must be downloaded to get its
metadata, and is named in the table. torch is pinned to the tested version if a framework allows it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
TORCH = "torch==2.13.0"
FRAMEWORKS = {
    "axolotl": "axolotl==0.19.0",
    "ms-swift": "ms-swift==4.6.0",
    "llamafactory": "llamafactory==0.9.5",
    "unsloth": "unsloth==2026.10.9",
    "oumi": "oumi==0.9",
    "nemo-automodel": "nemo-automodel==0.7.0",
}
# Frameworks that do not allow the tested version of torch.
OWN_TORCH = {"oumi"}
SHOWN = ("torch", "transformers", "trl", "peft", "datasets", "accelerate")
# `pip install --dry-run` downloads its choice before reporting it: https://github.com/pypa/pip/issues/12603
PIP = """
import sys
from pip._internal.operations.prepare import RequirementPreparer
RequirementPreparer.prepare_linked_requirements_more
RequirementPreparer.prepare_linked_requirements_more = lambda *arguments, **options: None
from pip._internal.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def resolve(python: Path, requirements: list[str], constraints: list[str], folder: Path, limit: float) -> dict | str:
    """Return pip's report of what it would install, or a line with the reason why it cannot."""
    report, file = folder / "report.json", folder / "constraints.txt"
    report.unlink(missing_ok=True)
    file.write_text("\n".join(constraints), encoding="utf-8")
    options = ["--dry-run", "--ignore-installed", "--quiet", "--report", str(report), "-c", str(file)]
    command = [str(python), "-c", PIP, "install", *options, *requirements]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"no answer in {limit:.0f} s"
    if done.returncode == 0:
        return json.loads(report.read_text(encoding="utf-8"))
    errors = [line for line in done.stderr.splitlines() if line.startswith(("ERROR: Cannot", "ERROR: No", "ERROR:"))]
    return (errors or done.stderr.splitlines()[-1:] or ["pip failed"])[0].removeprefix("ERROR: ")


def row(name: str, alone: dict | str, together: dict | str) -> str:
    """Return the row of a framework, from the reports of pip or its errors."""
    if isinstance(together, str):
        found, sources = [""] * len(SHOWN), ""
        verdict = f"not tried: {alone} without neft-zoo too" if isinstance(alone, str) else f"no: {together}"
    else:
        chosen = {each["metadata"]["name"].lower().replace("_", "-"): each for each in together["install"]}
        found = [chosen[each]["metadata"]["version"] if each in chosen else "" for each in SHOWN]
        verdict = "yes"
        urls = (each["download_info"]["url"] for each in together["install"])
        sources = ", ".join(Path(url).name for url in urls if not url.endswith(".whl"))
    return "| " + " | ".join([FRAMEWORKS.get(name, name), verdict.replace("|", "\\|"), *found, sources]) + " |"


def main() -> None:
    """Resolve for the given frameworks, by default for all."""
    parser = argparse.ArgumentParser(description="Resolve beside other frameworks, from metadata.")
    parser.add_argument("names", nargs="*", default=[*FRAMEWORKS], metavar="NAME", help=", ".join(FRAMEWORKS))
    parser.add_argument("--limit", type=float, default=900, help="seconds for one resolution")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        venv.create(scratch / "env", with_pip=True)
        python = scratch / "env" / "bin" / "python"
        pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--upgrade", "pip"], check=True)
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, str(ROOT)], check=True)
        wheel = str(next(scratch.glob("neft_zoo-*.whl")))
        head = ["beside", "neft-zoo installs", *SHOWN, "asked as source"]
        print(*(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head))), sep="\n", flush=True)
        print(row("nothing", {}, resolve(python, [wheel], [TORCH], scratch, options.limit)), flush=True)
        for name in options.names:
            pins = [] if name in OWN_TORCH else [TORCH]
            together = resolve(python, [FRAMEWORKS[name], wheel], pins, scratch, options.limit)
            failed = isinstance(together, str)
            alone = resolve(python, [FRAMEWORKS[name]], pins, scratch, options.limit) if failed else together
            print(row(name, alone, together), flush=True)


if __name__ == "__main__":
    sys.exit(main())
