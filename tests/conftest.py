"""What every test runs in: an environment without a hub, and the fixtures of tests/support."""

import importlib
import os
import sys

import matrix
import pytest
from matrix import (  # noqa: F401 - hooks and a fixture of pytest
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_terminal_summary,
    refused,
)
from oldest import pytest_ignore_collect, pytest_itemcollected  # noqa: F401 - hooks of pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # also of the processes that tests start: two workers share the cores


def pytest_configure(config):
    matrix.pytest_configure(config)
    # The process that only hands tests to workers starts them seconds earlier without torch.
    if not config.getoption("numprocesses", None):
        for name in ("small_models", "built_site"):
            config.pluginmanager.register(importlib.import_module(name), name)


@pytest.fixture
def imported_anew():
    """Forget the package for a test, which then imports it from where it likes, while the libraries stay."""

    def forget():
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "neft_zoo"}

    ours = forget()
    yield
    forget()
    sys.modules.update(ours)
