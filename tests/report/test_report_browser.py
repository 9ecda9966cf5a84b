"""The report's page in a real browser: drawn, switched, printed, on a phone, and offline.

Needs Playwright and a Chromium on the path (or named by DIPTYCH_BROWSER); skipped without them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from diptych.report.build import report_runs
from report_records import whole_study
from synthetic_runs import make_rows, make_run
from waiting import PATIENCE

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FOUND = os.environ.get("DIPTYCH_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(not FOUND, reason=f"no browser: none of {', '.join(NAMES)}")

DRAWN = "document.querySelectorAll('.plot').length === document.querySelectorAll('.drawn').length"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=FOUND, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study with everything in it."""
    folder = tmp_path_factory.mktemp("study")
    report_runs(whole_study(folder), folder / "report", search=[folder])
    return folder / "report" / "index.html"


class Open:
    """A page in a context of its own; what it complains of, and what it asks the network for."""

    def __init__(self, browser: Any, file: Path, width: int = 1200, **options: Any) -> None:
        options["viewport"] = {"width": width, "height": 900}
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(1000 * PATIENCE)  # a busy machine draws slowly
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())

    def drawn(self) -> Open:
        """Wait until every figure is drawn."""
        self.page.wait_for_function(DRAWN)
        return self

    def __enter__(self) -> Open:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


def test_figures_are_drawn_without_network_or_complaint(browser: Any, page_file: Path) -> None:
    with Open(browser, page_file) as shown:
        page = shown.drawn().page
        figures = json.loads(page.locator("#figures").text_content())
        assert page.locator(".plot").count() == len(figures) >= 12
        for name, figure in figures.items():
            plot = page.locator(f'.plot[data-figure="{name}"]')
            marks = plot.locator("svg.main-svg .trace, svg.main-svg .bars .point")
            assert marks.count() >= len(figure["traces"]), name
            box = plot.locator("svg.main-svg").first.bounding_box()
            assert box["width"] > 500 and box["height"] > 250, name
        loaded = page.evaluate(
            "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
        )
        assert loaded
        assert shown.complaints == []
        remote = [url for url in shown.asked if not url.startswith(("file:", "data:", "blob:"))]
        assert remote == []


def test_language_is_switched_in_text_and_figures(browser: Any, page_file: Path) -> None:
    with Open(browser, page_file) as shown:
        page = shown.drawn().page
        assert page.locator("h2", has_text="Performance log").is_visible()
        page.get_by_role("button", name="中文").click()
        shown.drawn()
        assert page.locator("html").get_attribute("lang") == "zh-CN"
        assert page.locator("h2", has_text="性能 log").is_visible()
        assert not page.get_by_text("Performance log", exact=True).first.is_visible()
        assert (
            "单步秒数" in page.locator('.plot[data-figure="step-time-distribution"]').inner_text()
        )
        assert "实验报告" in page.title()
        page.reload()
        assert page.locator("html").get_attribute("data-lang") == "zh"  # it is remembered
        assert shown.complaints == []


def luminance(page: Any, selector: str, key: str) -> float:
    """Lightness of a colour of an element, 0 to 255."""
    found = page.evaluate(
        "([s, k]) => getComputedStyle(document.querySelector(s))[k]", [selector, key]
    )
    return sum(int(part) for part in found.partition("(")[2].strip(")").split(",")[:3]) / 3


def test_theme_follows_the_system_and_is_switched(browser: Any, page_file: Path) -> None:
    with Open(browser, page_file, color_scheme="dark") as shown:
        page = shown.drawn().page
        paper = '.plot[data-figure="loss"] svg.main-svg'
        assert luminance(page, "body", "backgroundColor") < 60
        assert luminance(page, paper, "backgroundColor") < 60
        page.get_by_role("button", name="Light").click()
        shown.drawn()
        assert luminance(page, "body", "backgroundColor") > 240
        assert luminance(page, paper, "backgroundColor") > 240
        page.get_by_role("button", name="Dark").click()
        shown.drawn()
        assert luminance(page, "body", "backgroundColor") < 60
        assert page.get_by_role("button", name="Dark").get_attribute("aria-pressed") == "true"


def test_bars_keep_their_scale_when_drawn_anew(browser: Any, page_file: Path) -> None:
    """An update in place drew bars of 320 ms on an axis that ended at 4."""
    with Open(browser, page_file) as shown:
        page = shown.drawn().page
        top = "document.querySelector('.plot[data-figure=\"split\"]').layout.yaxis.range[1]"
        assert page.evaluate(top) > 300
        page.get_by_role("button", name="Dark").click()
        page.get_by_role("button", name="中文").click()
        shown.drawn()
        assert page.evaluate(top) > 300


def test_a_phone_is_not_scrolled_sideways(browser: Any, page_file: Path) -> None:
    with Open(browser, page_file, width=360, is_mobile=True, has_touch=True) as shown:
        page = shown.drawn().page
        wide = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert wide[0] <= wide[1] == 360
        plots = page.locator(".plot svg.main-svg")
        assert all(plots.nth(i).bounding_box()["width"] <= 360 for i in range(plots.count()))
        captions = page.locator("caption")
        assert all(captions.nth(i).bounding_box()["width"] <= 340 for i in range(captions.count()))
        cells = page.locator("#record-1 td")
        widths = [cells.nth(i).bounding_box()["width"] for i in (1, 2)]
        assert widths[0] >= 200  # the fields of a file filled a screen, three signs a line
        assert cells.nth(2).bounding_box()["height"] <= cells.nth(1).bounding_box()["height"]
        assert page.locator(".modebar").count() == 0  # where nothing hovers it lay upon the names
        assert shown.complaints == []


def test_no_picture_is_taller_than_the_window(browser: Any, page_file: Path) -> None:
    """The two columns of a sampler of two steps filled two screens."""
    with Open(browser, page_file) as shown:
        page = shown.drawn().page
        assert page.locator(".modebar").count() > 0
        tall = page.locator(".gallery img")
        heights = [tall.nth(i).bounding_box()["height"] for i in range(tall.count())]
        assert heights and max(heights) <= 500


def test_it_prints_with_static_figures(browser: Any, page_file: Path, tmp_path: Path) -> None:
    with Open(browser, page_file, color_scheme="dark") as shown:
        page = shown.drawn().page
        pdf = page.pdf(path=str(tmp_path / "page.pdf"), format="A4")
        assert pdf[:5] == b"%PDF-" and len(pdf) > 100_000
        page.emulate_media(media="print")
        assert luminance(page, "body", "backgroundColor") > 240
        assert page.locator("img.static").first.is_visible()
        assert not page.locator(".plot").first.is_visible()
        assert not page.locator("nav").is_visible()


def test_without_scripts_every_figure_is_a_picture(browser: Any, page_file: Path) -> None:
    with Open(browser, page_file, java_script_enabled=False) as shown:
        pictures = shown.page.locator("img.static")
        assert pictures.count() >= 12 and pictures.first.is_visible()


def test_it_can_be_used_by_keyboard_and_by_ear(browser: Any, page_file: Path) -> None:
    """Headings in order, one main, a text for every picture, the first Tab skips to the text."""
    with Open(browser, page_file) as shown:
        page = shown.drawn().page
        levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(b - a <= 1 for a, b in pairwise(levels))
        assert page.locator("main").count() == 1
        assert page.evaluate("[...document.images].every(image => image.alt.length > 10)")
        assert page.evaluate(
            "[...document.querySelectorAll('.plot')].every(p => p.getAttribute('aria-label'))"
        )
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.getAttribute('href')") == "#main"
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # the second button: Chinese
        assert page.locator("html").get_attribute("data-lang") == "zh"
        broken = page.evaluate(
            "[...document.querySelectorAll('a[href^=\"#\"]')]"
            ".filter(a => !document.getElementById(a.getAttribute('href').slice(1))).length"
        )
        assert broken == 0


def test_hostile_names_stay_text(browser: Any, tmp_path: Path) -> None:
    """A folder or a processor may be called anything."""
    name = "<img src=x onerror=alert(1)>"
    run = make_run(tmp_path / name, "torch", make_rows(30),
                   environment={"cpu": "</script><b>x</b>"})  # fmt: skip
    report_runs([run], tmp_path / "out")
    with Open(browser, tmp_path / "out" / "index.html") as shown:
        page = shown.drawn().page
        assert name in page.locator("h1").inner_text()
        assert page.locator("img[src=x]").count() == 0
        assert shown.complaints == []
