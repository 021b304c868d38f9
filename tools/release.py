"""Builds sdist and wheel into dist/, checks both, and runs the demo from each in an empty environment.

A dry run: nothing is published.

python tools/release.py            # or: make release
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
PIP = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(ROOT / "constraints.txt")]
# Commands that need no extra, and a shortened demo with eight steps per run, after which the noise is first logged.
COMMANDS = ["list", "show neft_uniform", "cite neft_uniform", "recipes ls", "recipes cp quickstart copy.yaml"]
DEMO = "-m neft_zoo.recipes.quickstart.demo --records 128 --epochs 1 --output demo"


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run a program that must succeed and must not import from the checkout."""
    print("+", *command, flush=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if subprocess.run(command, cwd=cwd, env=environment).returncode:
        raise SystemExit("the last command failed; nothing was published.")


def build() -> list[Path]:
    """Return the sdist and the wheel, which is built from the sdist."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", DIST)
    return sorted(DIST.iterdir())


def check(files: list[Path]) -> None:
    """Check the metadata of both files and the wheel's contents."""
    run(sys.executable, "-m", "twine", "check", "--strict", *files)
    run(sys.executable, "-m", "check_wheel_contents", *(file for file in files if file.suffix == ".whl"))


def try_out(file: Path) -> None:
    """Install a file into an empty environment, and run commands without extras, then the demo with `plot`."""
    with tempfile.TemporaryDirectory(prefix="neft-zoo-release-") as name:
        folder = Path(name)
        run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
        programs = folder / "venv" / "bin"
        run(programs / "python", *PIP, file, cwd=folder)
        for arguments in COMMANDS:
            run(programs / "neft-zoo", *arguments.split(), cwd=folder)
        run(programs / "python", *PIP, f"{file}[plot]", cwd=folder)
        run(programs / "python", *DEMO.split(), cwd=folder)
        if not (folder / "demo" / "loss.png").stat().st_size:
            raise SystemExit(f"the demo from {file.name} must draw loss.png, got an empty file.")


def main() -> None:
    files = build()
    check(files)
    for file in files:
        try_out(file)
    print(*(f"ready: {file}" for file in files), sep="\n")


if __name__ == "__main__":
    main()
