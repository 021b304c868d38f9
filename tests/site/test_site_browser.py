"""The built site in Chromium: it loads nothing from elsewhere, sorts, filters, draws and computes, for everyone.

Chromium is the system's (`make browser` installs Debian's). The site is built once, from made-up results.
"""

import fcntl
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from itertools import cycle, product
from pathlib import Path

import made_up
import pytest
import torch
from selection import quick

from neft_zoo import make
from neft_zoo.noise.batch import Batch
from neft_zoo.passes.adding import add_rounded

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'neft-zoo[dev]'")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: make browser installs it")

ROOT = Path(__file__).parents[2]
PHONE = {"width": 375, "height": 740}
CORE = [
    "index.html",
    "choosing.html",
    "compare.html",
    "findings.html",
    "playground.html",
    "strategies/neft_uniform.html",
]
BUILD = """
import sys
from mkdocs.commands.build import build
from mkdocs.config import load_config

config = load_config("mkdocs.yml", site_dir=sys.argv[1], strict=True, extra={"results": sys.argv[2]})
config.plugins.on_startup(command="build", dirty=False)
build(config)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the folder of the site, built by whichever worker comes first."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    with open(shared / "site.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        built = shared / "site"
        if not (built / "done").exists():
            results = made_up.committed(shared / "site-results/results")
            command = [sys.executable, "-c", BUILD, str(built), str(results)]
            path = {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
            done = subprocess.run(command, cwd=ROOT, env={**os.environ, **path}, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            (built / "done").touch()
    return built


@pytest.fixture(scope="module")
def address(site):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def visit(browser, address):
    """Return a function that opens a page, and fails at the end on any error or request that left the site."""
    opened, wrong = [], []

    def go(path, **options):
        context = browser.new_context(**options)
        opened.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)  # a busy machine is slow, not broken
        page.on("console", lambda told: wrong.append(f"{path}: {told.text}") if told.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(f"{path}: {error}"))
        page.on("requestfailed", lambda asked: wrong.append(f"{path}: {asked.url} failed"))
        page.on("request", lambda asked: None if inside(asked.url) else wrong.append(f"{path}: asks for {asked.url}"))
        page.goto(f"{address}/{path}", wait_until="load")
        return page

    def inside(url):
        return url.startswith((address, "data:", "blob:"))

    yield go
    for context in opened:
        context.close()
    assert wrong == []


def faults(page):
    """Return the serious faults that axe-core finds."""
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {node['html'][:200]}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"][:3]
    ]


def pages(site):
    return sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html") if path.name != "404.html")


@pytest.mark.parametrize(
    ("path", "scheme"),
    quick(product(CORE, ("light", "dark")), *zip(CORE, cycle(("light", "dark")))),
)
def test_pages_are_accessible_and_quiet(visit, path, scheme):
    assert faults(visit(path, color_scheme=scheme)) == []


@pytest.mark.slow
def test_every_page_is_accessible_and_quiet(visit, site):
    for path in pages(site):
        page = visit(path, color_scheme="dark")
        assert (path, faults(page)) == (path, [])
        page.context.close()


@pytest.mark.parametrize("path", CORE)
def test_a_phone_needs_no_sideways_scrolling(visit, path):
    page = visit(path, viewport=PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_links_lead_to_pages_and_headings(site):
    ids = {}

    def known(path):
        if path not in ids:
            ids[path] = set(re.findall(r'\bid="([^"]+)"', path.read_text(encoding="utf-8")))
        return ids[path]

    broken = []
    for name in pages(site):
        page = site / name
        for link in set(re.findall(r'<a\b[^>]*?href="([^"]+)"', page.read_text(encoding="utf-8"))):
            if re.match(r"[a-z]+:", link):
                continue
            target, _, anchor = link.partition("#")
            file = (page.parent / target).resolve() if target else page
            file = file / "index.html" if file.is_dir() else file
            if not file.exists() or (anchor and file.suffix == ".html" and anchor not in known(file)):
                broken.append(f"{name}: {link}")
    assert broken == []


def names(page):
    return page.locator("section.experiment:not([hidden]) tbody tr:not([hidden]) th[scope=row]").all_inner_texts()


def test_the_table_sorts_and_keeps_the_baseline_first(visit):
    page = visit("compare.html")
    head = page.locator("section.experiment:not([hidden]) th[data-key='test_loss.end']")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    up = [each.split("\n")[0] for each in names(page)]
    assert up[:3] == ["none", "neft_uniform alpha=10", "neft_gaussian"] or up[2] == "neft_uniform alpha=5"
    assert up[-1].startswith("lat"), "what was not measured is last"
    head.locator("button").click()
    down = [each.split("\n")[0] for each in names(page)]
    assert down[0] == "none" and down[-1].startswith("lat") and down[1:-1] == up[1:-1][::-1]


def test_the_table_filters_by_words_and_kind(visit):
    page = visit("compare.html")
    page.fill("#compare-filter", "uniform 10")
    assert [each.split("\n")[0] for each in names(page)] == ["none", "neft_uniform alpha=10"]
    assert "2 of 7 rows" in page.inner_text("#compare-count")
    page.fill("#compare-filter", "")
    page.uncheck("[name=family][value='single pass']")
    kept = [each.split("\n")[0].split(" ")[0] for each in names(page)]
    assert kept == ["none", "lat", "symnoise", "label_smoothing"]


def test_columns_can_be_hidden_and_experiments_chosen(visit):
    page = visit("compare.html")
    page.click("#compare-controls summary")
    box = page.locator("#compare-columns label", has_text="answer length").locator("input")
    box.uncheck()
    assert not page.locator("th[data-key='test_words.end']").first.is_visible()
    odd = page.locator("th[data-key='odd_thing.end']").first
    assert not odd.is_visible(), "what nobody described waits to be asked for"
    page.locator("#compare-columns label", has_text="odd thing").locator("input").check()
    assert odd.is_visible()
    page.select_option("#compare-experiment", "made-up-equal-compute")
    assert [each.split("\n")[0] for each in names(page)] == ["none", "symnoise"]


def test_the_charts_draw_every_row_with_its_interval(visit):
    page = visit("compare.html")
    shown = page.locator("#compare-forest svg")
    assert shown.locator("circle").count() == 6, "all rows but the one that failed"
    assert shown.locator("line.bar").count() == 5 and shown.locator("circle.baseline").count() == 1
    means = [
        float(each.split(": ")[1].split(" ")[0].replace("−", "-"))
        for each in shown.locator("title").all_text_contents()
    ]
    assert means[0] == 0 and means[1:] == sorted(means[1:]), "the baseline, then from the best on"
    page.select_option("#compare-metric", "train_rouge_l.end")
    assert "ROUGE-L" in page.locator("#compare-forest svg").get_attribute("aria-label")
    assert page.locator("#compare-scatter svg circle").count() == 6
    zero = page.locator("#compare-forest line.zero").bounding_box()["x"]
    titles = [each.split(":")[0] for each in page.locator("#compare-forest title").all_text_contents()]
    uniform = page.locator("#compare-forest circle").nth(titles.index("neft_uniform alpha=10")).bounding_box()
    assert uniform["x"] + uniform["width"] < zero, "less memorization lies left of none"


def test_a_row_leads_to_its_entry_and_to_its_runs(visit):
    page = visit("compare.html")
    run = page.locator("section.experiment:not([hidden]) tr", has_text="symnoise").locator(".runs a").first
    record = json.loads(page.request.get(run.evaluate("each => each.href")).text())
    assert record["noise"]["name"] == "symnoise" and record["seed"] == 0
    page.locator("section.experiment:not([hidden]) tbody a", has_text="symnoise").first.click()
    assert page.inner_text("h1").startswith("symnoise")
    assert page.locator("math").count() and page.locator("figure.plot svg").count() >= 2


def test_without_javascript_tables_and_figures_are_there(visit):
    page = visit("compare.html", java_script_enabled=False)
    assert page.locator("table.results").count() == 2 and page.locator("table.results:visible").count() == 2
    assert page.locator(".still svg:visible").count() == 4
    assert not page.locator("#compare-controls").is_visible()


def test_findings_say_what_the_rule_says(visit):
    rows = visit("findings.html").locator("article table").first.locator("tbody tr").all_inner_texts()
    rows = [each.split("\n")[0] for each in rows]  # below the outcome are its intervals
    assert "Held-out loss goes down\treproduced" in rows and "Outputs get longer\tcontradicted" in rows


SETTINGS = [
    ("neft_uniform", 5, 512, 512, 0.02),
    ("neft_uniform", 5, 512, 1024, 1.0),
    ("neft_gaussian", 15, 256, 768, 0.5),
    ("neft_laplace", 5, 256, 768, 1.0),
    ("symnoise", 10, 128, 1024, 1.0),
    ("neft_sphere", 5, 256, 512, 0.2),
    ("token_relative", 0.003, 256, 512, 0.05),
    ("pdr", 0.001, 256, 512, 0.3),
]


def by_package(name, strength, length, width, embedding, dtype):
    """Return what the package adds to normal embeddings, measured on one document."""
    argument = {"token_relative": "rho", "pdr": "eps"}.get(name, "alpha")
    noise = make(name, **{argument: float(strength)}).noise
    torch.manual_seed(0)
    ids = torch.randint(0, 1000, (1, length))
    embeds = (torch.randn(1, length, width) * embedding).to(dtype)
    batch = Batch.from_inputs({"input_ids": ids}, key=7)
    delta = noise(embeds, batch)
    same = [(embeds + delta.to(dtype)) == embeds, add_rounded(embeds, delta, batch) == embeds]
    rms = delta.square().mean().sqrt().item()
    return {
        "rms": rms,
        "document": delta.norm().item(),
        "token": delta.norm(dim=-1).square().mean().sqrt().item(),
        "snr": 20 * torch.tensor(embeds.float().square().mean().sqrt().item() / rms).log10().item(),
        "largest": delta.abs().max().item(),
        "nearest": same[0].float().mean().item(),
        "package": same[1].float().mean().item(),
    }


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_the_playground_computes_what_the_package_does(visit, dtype):
    page = visit("playground.html")
    for name, *numbers in SETTINGS:
        page.select_option("[name=strategy]", label=name)
        for field, value in zip(("strength", "tokens", "width", "embedding"), numbers, strict=True):
            page.fill(f"[name={field}]", str(value))
        page.select_option("[name=dtype]", dtype)
        keys = ("bound", "rms", "token", "document", "snr", "nearest", "package")
        told = {key: page.locator(f"#playground-{key}").get_attribute("data-value") for key in keys}
        measured = by_package(name, *numbers, getattr(torch, dtype))
        for key in ("rms", "token", "document"):
            assert float(told[key]) == pytest.approx(measured[key], rel=0.01), (name, key)
        assert float(told["snr"]) == pytest.approx(measured["snr"], abs=0.1), name
        for key in ("nearest", "package"):
            assert float(told[key]) == pytest.approx(measured[key], abs=0.01), (name, numbers, key)
        if told["bound"]:
            assert 0.99 * float(told["bound"]) < measured["largest"] <= float(told["bound"]) * 1.0001, name


def test_the_playground_refuses_what_is_no_number(visit):
    page = visit("playground.html")
    page.fill("[name=tokens]", "0")
    assert page.locator("#playground-wrong").is_visible()
    page.fill("[name=tokens]", "10")
    assert not page.locator("#playground-wrong").is_visible()
    page.select_option("[name=family]", "1")
    assert page.input_value("[name=embedding]") == "1"
