"""The page in a browser: sorting, narrow screens, themes and console messages."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bayes_share.reports.document import Report
from bayes_share.reports.html_page import html_page

pytestmark = pytest.mark.slow
playwright = pytest.importorskip("playwright.sync_api", reason="the extra 'browser' is not installed")

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=found, args=[*_QUIET, "--disable-component-update"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(report: Report, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html_page(report), encoding="utf-8")
    return Path(path).as_uri()


def open_page(browser: Any, address: str, width: int, theme: str) -> tuple[Any, list[str]]:
    opened = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme).new_page()
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
    opened.goto(address)
    return opened, said


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 800, 1280])
def test_the_page_does_not_overflow_or_log_errors(browser: Any, address: str, width: int, theme: str) -> None:
    opened, said = open_page(browser, address, width, theme)
    wider = """() => [...document.querySelectorAll("body *")]
        .filter(e => !e.closest(".scroll, pre, svg") && e.getBoundingClientRect().right > innerWidth + 0.5)
        .map(e => e.outerHTML.slice(0, 80))"""
    opened.evaluate("() => document.querySelectorAll('details').forEach(each => { each.open = true; })")
    assert opened.evaluate(wider) == []
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert said == []


def test_clicking_a_column_sorts_best_first_then_reverses(browser: Any, address: str) -> None:
    opened, _ = open_page(browser, address, 1280, "light")
    rows = """() => [...document.querySelectorAll("#overview tbody tr")]
        .map(row => [...row.cells].map(cell => cell.dataset.value))"""
    for column, best in ((2, max), (3, min)):
        head = opened.locator("#overview thead button").nth(column)
        head.click()
        values = [float(row[column]) for row in opened.evaluate(rows)]
        assert values == sorted(values, reverse=best is max)
        head.click()
        assert [float(row[column]) for row in opened.evaluate(rows)] == values[::-1]
    opened.locator("#overview thead button").first.click()
    names = opened.locator("#overview tbody th").all_inner_texts()
    assert names == sorted(names)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_theme_follows_the_system_until_it_is_changed(browser: Any, address: str, theme: str) -> None:
    opened, _ = open_page(browser, address, 800, theme)
    ground = "() => getComputedStyle(document.body).backgroundColor"
    text = "() => getComputedStyle(document.querySelector('.panels svg text')).fill"
    before, ink = opened.evaluate(ground), opened.evaluate(text)
    assert (before == "rgb(255, 255, 255)") == (theme == "light")
    assert before != ink
    opened.locator("#theme").click()
    assert (opened.evaluate(ground) == "rgb(255, 255, 255)") == (theme == "dark")
    assert opened.evaluate(text) != ink


def test_printing_expands_collapsed_blocks(browser: Any, address: str) -> None:
    opened, _ = open_page(browser, address, 800, "dark")
    assert not opened.locator("details pre").first.is_visible()
    opened.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    assert opened.locator("details pre").first.is_visible()
