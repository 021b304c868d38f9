"""The built site for the tests: a few pages of it from made-up results, or for slow tests all of it from ours."""

import contextlib
import fcntl
import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import made_up
import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# The quick site has no API, and the pages of few strategies and recipes: what takes the time is alike in all of them.
BUILD = """
import sys
from mkdocs.commands.build import build
from mkdocs.config import load_config

folder, results = sys.argv[1:]
few = {"entries": ["none", "neft_uniform", "symnoise"], "recipes": ["base", "paper/base", "paper/llama2-7b-alpaca"]}
changed = {"strict": not results}
if results:
    changed["extra"] = {"results": results, **few}
    changed["plugins"] = ["search"]
    changed["exclude_docs"] = "hooks.py\\nbuilder/\\noverrides/\\n__pycache__/\\napi.md\\napi-parts.md\\n"
config = load_config("mkdocs.yml", site_dir=folder, **changed)
config.plugins.on_startup(command="build", dirty=False)
build(config)
"""


def built(folder: Path, whole: bool) -> Path:
    """Return the folder of the site, built by whichever worker comes first."""
    name = "whole" if whole else "quick"
    with open(folder / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        site = folder / name
        if not (site / "done").exists():
            results = "" if whole else str(made_up.committed(folder / "results"))
            command = [sys.executable, "-c", BUILD, str(site), results]
            path = {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
            done = subprocess.run(command, cwd=ROOT, env={**os.environ, **path}, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            (site / "done").touch()
    return site


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def site(shared):
    return built(shared, whole=False)


@pytest.fixture(scope="session")
def whole_site(shared):
    return built(shared, whole=True)


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'neft-zoo[dev]'")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: make browser installs it")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serving(folder):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def address(site):
    with serving(site) as address:
        yield address


@pytest.fixture(scope="session")
def whole_address(whole_site):
    with serving(whole_site) as address:
        yield address


@pytest.fixture
def open_page(browser):
    """Return a function that opens an address, and fails at the end on any error or request that left the site."""
    opened, wrong = [], []

    def go(address, path, **options):
        context = browser.new_context(**options)
        opened.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)  # a busy machine is slow, not broken
        page.on("console", lambda told: wrong.append(f"{path}: {told.text}") if told.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(f"{path}: {error}"))

        def failed(asked):
            if asked.failure != "net::ERR_ABORTED":  # by leaving the page before all of it is there
                wrong.append(f"{path}: {asked.url} failed, {asked.failure}")

        page.on("requestfailed", failed)

        def check(asked):
            if not asked.url.startswith((address, "data:", "blob:")):
                wrong.append(f"{path}: asks for {asked.url}")

        page.on("request", check)
        page.goto(f"{address}/{path}", wait_until="load")
        return page

    yield go
    for context in opened:
        context.close()
    assert not wrong, wrong


@pytest.fixture
def visit(open_page, address):
    return functools.partial(open_page, address)


@pytest.fixture
def visit_whole(open_page, whole_address):
    return functools.partial(open_page, whole_address)
