"""The built site in Chromium: what it loads, what the address holds, what fits, for everyone.

Chromium is the system's (`make browser` installs Debian's). Quick tests see a few pages; slow ones the whole site.
"""

import json
import re
from html.parser import HTMLParser

import pytest
from selection import quick

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")

WIDE, PHONE, TABLET = {"width": 1440, "height": 900}, {"width": 390, "height": 844}, {"width": 1024, "height": 768}
CORE = ["index.html", "choosing.html", "compare.html", "strategies.html", "strategies/neft_uniform.html"]
HEAVIEST, MOST_NODES = 300_000, 3_000
# What is wider than its box is cut, or has to be scrolled; a table that is wider than the text lies over other things.
CUT = """() => {
    const right = document.querySelector('article').getBoundingClientRect().right + 1;
    return [...document.querySelectorAll('pre, pre > code, table, .md-typeset__scrollwrap')]
        .filter((each) => each.scrollWidth > each.clientWidth + 1
            || (each.tagName === 'TABLE' && each.getBoundingClientRect().right > right))
        .map((each) => each.textContent.slice(0, 60));
}"""
# A verdict in a narrow column is read in whole words.
BROKEN = """() => [...document.querySelectorAll('table.results td:last-child span')].flatMap((each) =>
    [...each.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE).flatMap((node) =>
        [...node.data.matchAll(/[a-z]+/g)].filter((word) => {
            const range = document.createRange();
            range.setStart(node, word.index);
            range.setEnd(node, word.index + word[0].length);
            return range.getClientRects().length > 1;
        }).map((word) => word[0])))"""
FIRST, OTHER = "made-up-equal-steps", "made-up-equal-compute"


def faults(page):
    """Return the serious faults that axe-core finds; what the theme fades in at a new width is looked at again."""
    for _ in range(5):
        found = [
            f"{each['id']}: {node['html'][:200]}"
            for each in axe.Axe().run(page).response["violations"]
            if each["impact"] in ("serious", "critical")
            for node in each["nodes"][:3]
        ]
        if not found:
            break
        page.wait_for_timeout(300)
    return found


def pages(site):
    return sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html") if path.name != "404.html")


def is_cut(page):
    """Return what is cut, once the page has taken a new width: its header moves there."""
    for _ in range(5):
        found = page.evaluate(CUT) + page.evaluate(BROKEN)
        found += ["page"] if page.evaluate("document.documentElement.scrollWidth > innerWidth") else []
        if not found:
            break
        page.wait_for_timeout(200)
    return found


@pytest.mark.parametrize(
    "path", quick(["choosing.html", "compare.html", "strategies/neft_uniform.html"], "compare.html")
)
def test_pages_are_accessible_and_quiet(visit, path):
    assert faults(visit(path)) == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible_quiet_and_whole(visit_whole, whole_site, scheme):
    page = visit_whole("index.html", color_scheme=scheme)
    root = page.url.removesuffix("index.html")
    for path in pages(whole_site):
        page.goto(root + path)
        for viewport in (PHONE, TABLET, WIDE):
            page.set_viewport_size(viewport)
            assert (path, viewport["width"], is_cut(page)) == (path, viewport["width"], [])
        assert (path, faults(page)) == (path, [])


@pytest.mark.parametrize("path", quick(CORE, "choosing.html", "compare.html"))
def test_nothing_is_cut_at_any_width(visit, path):
    page = visit(path, viewport=PHONE)
    for viewport in (PHONE, TABLET, WIDE):
        page.set_viewport_size(viewport)
        assert is_cut(page) == []


class Nodes(HTMLParser):
    count = 0

    def handle_starttag(self, tag, attrs):
        self.count += 1


def too_heavy(site):
    heavy = []
    for name in pages(site):
        text = (site / name).read_text(encoding="utf-8")
        nodes = Nodes()
        nodes.feed(text)
        if len(text.encode()) > HEAVIEST or nodes.count > MOST_NODES:
            heavy.append(f"{name}: {len(text.encode())} bytes, {nodes.count} nodes")
    return heavy


def test_no_page_is_heavy(site):
    assert too_heavy(site) == []


@pytest.mark.slow
def test_no_page_of_the_whole_site_is_heavy(whole_site):
    assert too_heavy(whole_site) == []


def broken_links(site):
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
            is_view = "=" in anchor
            if not file.exists() or (anchor and not is_view and file.suffix == ".html" and anchor not in known(file)):
                broken.append(f"{name}: {link}")
    return broken


@pytest.mark.slow
def test_links_lead_to_pages_and_headings(whole_site):
    assert broken_links(whole_site) == []


def rows(page):
    return [each.split("\n")[0] for each in page.locator("#compare-table tbody th[scope=row]").all_inner_texts()]


def state(page):
    """Return what controls, table and chart say."""
    controls = {
        name: page.input_value(f"#compare-{name}")
        for name in ("experiment", "metric", "rows", "filter", "against", "cells")
    }
    heads = page.locator("#compare-table thead th").all_inner_texts()
    charted = page.locator("#compare-scatter svg").get_attribute("aria-label")
    return controls, rows(page), heads, charted


def ready(page, experiment=FIRST):
    page.locator(f"#compare-csv[href='data/{experiment}.csv']").wait_for()
    page.locator("#compare-scatter svg").wait_for()
    return page


def test_an_experiment_is_loaded_when_it_is_asked_for(visit, site):
    page = ready(visit("compare.html"))
    with page.expect_request(f"**/data/{OTHER}.json"):
        page.select_option("#compare-experiment", OTHER)
    ready(page, OTHER)
    assert rows(page) == ["none", "symnoise"]
    data = json.loads((site / f"data/{FIRST}.json").read_text())
    assert len(data["rows"]) == 7 and (site / f"data/{FIRST}.csv").exists() and (site / "data/results.csv").exists()


def test_the_view_is_in_the_address_and_back_and_forward_keep_all_in_step(visit):
    page = ready(visit("compare.html"))
    seen = [state(page)]
    page.select_option("#compare-rows", "all")
    seen.append(state(page))
    page.select_option("#compare-metric", "train_rouge_l.end")
    seen.append(state(page))
    page.locator("#compare-table th[data-key='test_loss.end'] button").last.click()
    seen.append(state(page))
    page.fill("#compare-filter", "neft")
    seen.append(state(page))
    page.locator("#compare-controls summary").click()
    page.locator("#compare-columns input[value='odd_thing.end']").check()
    seen.append(state(page))
    page.select_option("#compare-experiment", OTHER)
    ready(page, OTHER)
    assert state(page) != seen[-1]
    for expected in reversed(seen):
        page.go_back()
        ready(page)
        assert state(page) == expected
    for expected in seen[1:]:
        page.go_forward()
        assert state(page) == expected
    address = page.url
    for part in ("rows=all", "metric=train_rouge_l.end", "sort=test_loss.end", "filter=neft", "odd_thing.end"):
        assert part in address
    page.goto("about:blank")
    page.goto(address)
    ready(page)
    assert state(page) == seen[-1], "whoever gets the address sees the same"


def test_differences_are_sorted_and_the_baseline_stays_first(visit):
    page = ready(visit("compare.html#rows=all"))
    head = page.locator("#compare-table th[data-key='test_loss.best']")
    head.locator("button").click()
    up = rows(page)
    assert up[0] == "none" and up[-1] == "lat", "what was not measured is last"
    assert page.locator("#compare-table th[data-key='test_loss.best']").get_attribute("aria-sort") == "ascending"
    cells = page.locator("#compare-table td[data-label='test loss, at the best checkpoint']").all_inner_texts()
    values = [float(each.split()[0].replace("−", "-")) for each in cells[1:-1]]
    assert values == sorted(values)
    page.locator("#compare-table th[data-key='test_loss.best'] button").click()
    assert rows(page)[1:-1] == up[1:-1][::-1]
    page.locator("#compare-controls summary").click()
    page.select_option("#compare-cells", "mean")
    assert "against" in page.locator("#compare-table td[data-label='test loss, at the end']").nth(1).inner_text()


def test_rows_are_filtered_by_words_and_family(visit):
    page = ready(visit("compare.html#rows=all&filter=uniform+10"))
    assert rows(page) == ["none", "neft_uniform alpha=10"]
    assert "2 of 7 rows" in page.inner_text("#compare-count")
    page.fill("#compare-filter", "")
    page.locator("#compare-controls summary").click()
    page.locator("[name=family][value='single pass']").uncheck()
    assert rows(page) == ["none", "lat", "symnoise", "label_smoothing"]


def test_charts_have_sides_colours_and_arrows(visit):
    page = ready(visit("compare.html#rows=all"))
    head = page.locator("#compare-table th.chart").inner_text()
    assert "minus the baseline" in head and "← better · worse →" in head
    kinds = page.locator("#compare-table .dot.end").evaluate_all("dots => dots.map((dot) => dot.className)")
    assert any("better" in each for each in kinds)
    assert page.locator("#compare-table .dot.best").count() == page.locator("#compare-table .dot.end").count()
    points = page.locator("#compare-scatter .dot").count()
    assert points == 6, "all rows but the one that failed"
    colours = {
        page.locator(f"#compare-table .badge.{kind}").first.evaluate("each => getComputedStyle(each).color")
        for kind in ("better", "worse", "same", "undecided")
        if page.locator(f"#compare-table .badge.{kind}").count()
    }
    assert len(colours) >= 3, "verdicts have colours of their own"


def test_a_row_leads_to_its_entry_and_to_its_runs(visit):
    page = ready(visit("compare.html"))
    row = page.locator("#compare-table tr", has_text="symnoise").first
    row.locator("summary").click()
    record = json.loads(page.request.get(row.locator(".runs a").first.evaluate("each => each.href")).text())
    assert record["noise"]["name"] == "symnoise" and record["seed"] == 0
    row.locator("th a").click()
    page.locator("h1", has_text="symnoise").wait_for()
    page.locator("math").first.wait_for()
    page.locator("table.results .track").first.wait_for()  # drawn by a script, after the page is loaded


def test_without_javascript_the_short_table_and_a_whole_answer_are_there(visit):
    page = visit("compare.html", java_script_enabled=False)
    assert 2 < page.locator("#compare-table tbody tr:visible").count() <= 10
    assert page.locator("#compare-table .track:visible").count() > 1
    assert not page.locator("#compare-controls").is_visible()
    page.goto(page.url.replace("compare", "choosing"))
    code = page.inner_text("#chooser-code")
    assert "load_in_4bit=True" in code and "Meta-Llama-3-8B" in code
    assert not page.locator("#chooser-form").is_visible()


def test_the_site_works_from_a_folder(browser, site):
    page = browser.new_page()
    page.goto((site / "compare.html").as_uri())
    page.select_option("#compare-experiment", OTHER)
    ready(page, OTHER)
    assert rows(page) == ["none", "symnoise"] and f"experiment={OTHER}" in page.url
    page.close()


def test_wide_tables_are_cards_on_paper(visit):
    page = visit("compare.html")
    page.emulate_media(media="print")
    cell = page.locator("#compare-table td[data-label]").first
    assert (
        cell.evaluate("each => getComputedStyle(each, '::before').content") == f'"{cell.get_attribute("data-label")}"'
    )
    assert not page.locator("#compare-table thead").is_visible()


def test_findings_say_what_the_rule_says(visit):
    lines = visit("findings.html").locator("article table").first.locator("tbody tr").all_inner_texts()
    lines = [each.split("\n")[0] for each in lines]  # below the outcome are its intervals
    assert "Held-out loss goes down\treproduced" in lines and "Outputs get longer\tcontradicted" in lines


# What a reader means by a word, and where the first hit must lead.
SEARCHES = {
    "install": "guides/quickstart.html",
    "Llama": "choosing.html",
    "cite": "cite.html",
    "QLoRA": "guides/peft.html",
    "overfitting": "guides/overfitting.html",
}


def first_hits(page):
    """Return where the first hit for each word leads."""
    hits, field = {}, page.locator(".md-search__input")
    for word in SEARCHES:
        field.fill("")
        field.press_sequentially(word)
        page.wait_for_function(
            "word => document.querySelector('.md-search-result__list')?.innerHTML.includes(`h=${word}`)",
            arg=word.lower(),
        )
        hits[word] = page.locator(".md-search-result__link").first.get_attribute("href")
    return hits


def test_search_finds_what_a_reader_means(visit):
    hits = first_hits(visit("index.html"))
    assert [word for word, target in SEARCHES.items() if target not in hits[word]] == []


@pytest.mark.slow
def test_search_of_the_whole_site_finds_what_a_reader_means(visit_whole):
    hits = first_hits(visit_whole("index.html"))
    assert [word for word, target in SEARCHES.items() if target not in hits[word]] == []
