"""The rating page in a real browser, by keyboard, and its export read back."""

import shutil

import pytest

from neft_zoo.judging.pairs import Pair
from neft_zoo.judging.rating_page import read_ratings, write_page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PAIRS = [Pair(f"Question {i}?", f"ours {i}", f"<b>theirs</b> {i}</script>") for i in range(4)]


@pytest.fixture
def context():
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_context(accept_downloads=True)
        browser.close()


@pytest.mark.slow
def test_the_policy_lets_no_script_run_but_the_pages_own(context, tmp_path):
    path = write_page(
        [Pair("<script>window.hit=1</script>", "ours", "<img src=x onerror='window.hit=1'>")], tmp_path / "p"
    )
    path = path.rename(tmp_path / "page.html")
    path.write_text(
        path.read_text().replace("<header>", "<script>window.hit=1</script><img src=x onerror='hit=1'><header>")
    )
    page = context.new_page()
    page.goto(path.as_uri())
    page.keyboard.press("1")
    assert page.evaluate("window.hit") is None and page.locator("#count").inner_text() == "1 of 1, 1 rated"


@pytest.mark.slow
def test_a_person_rates_by_keyboard_comes_back_later_and_exports(context, tmp_path):
    path = write_page(PAIRS, tmp_path / "page.html")
    page, trouble = context.new_page(), []
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: trouble.append(request.url) if request.url.startswith("http") else None)

    def ours_is_first():
        return page.locator("#first").inner_text().startswith("ours")

    page.goto(path.as_uri())
    for _ in range(2):
        page.keyboard.press("1" if ours_is_first() else "2")  # ours wins twice
    assert page.locator("#count").inner_text() == "3 of 4, 2 rated"
    page.close()

    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator("#count").inner_text() == "3 of 4, 2 rated", "kept by the browser"
    page.keyboard.press("0")
    tied = page.locator("#instruction").inner_text()
    page.keyboard.press("1")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#instruction").inner_text() != tied
    page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="Answer 2 is better").focus()
    page.keyboard.press("Enter")  # the last one, changed from 1 to 2 by a focused button
    last = (page.locator("#instruction").inner_text(), 0.0 if ours_is_first() else 1.0)
    with page.expect_download() as download:
        page.keyboard.press("e")
    download.value.save_as(tmp_path / "ratings.json")
    found = {each.pair.instruction: each.preference for each in read_ratings(tmp_path / "ratings.json", PAIRS)}
    assert found.pop(last[0]) == last[1] and sorted(found.values()) == [0.5, 1.0, 1.0] and trouble == []
