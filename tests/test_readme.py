"""The README's measured table is what its command prints."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_table_of_the_readme_is_what_its_command_prints():
    command = [sys.executable, "tests/benchmarks/against_hook.py", "--markdown"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert printed.returncode == 0, printed.stderr[-3000:]
    rows = [line for line in printed.stdout.splitlines() if line.startswith("| ")]
    shown = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(rows) > 10 and not [row for row in rows if row not in shown]
