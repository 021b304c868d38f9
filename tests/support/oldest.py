"""What `make test-oldest` runs, with the oldest supported versions of the libraries that the package builds on.

A test marked `@pytest.mark.later` is left out: those versions lack what it needs, or do it wrong.
"""

from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
# What meets TRL, transformers, PEFT and accelerate, and what all of it stands on.
RUN = ("noise/test_parts", "noise/test_batch", "objectives/test_objectives", "passes/", "registry/", "doctor/")
RUN += ("strategies/test_oracles", "config/test_declared", "cli/test_cli")
TRAINING = ["loop", "engine_internals", "hf_internals", "interruptions", "peft", "provenance", "sft_layouts"]
TRAINING += ["sft_trainer", "trainers"]
RUN += tuple(f"training/test_{name}" for name in TRAINING)
FAMILIES = {"minicpm3", "gemma4", "hyperclovax"}  # that are newer


def pytest_itemcollected(item):
    """Mark what is run as `oldest`, before -m leaves tests out."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    newer = any(isinstance(value, str) and value in FAMILIES for value in parameters)
    if item.path.relative_to(TESTS).as_posix().startswith(RUN) and not newer and not item.get_closest_marker("later"):
        item.add_marker(pytest.mark.oldest)
