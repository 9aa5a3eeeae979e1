"""The report and a person's page as a reader sees them: drawn without a network, on wide and narrow screens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from dagster_server import chromium
from playwright.sync_api import Browser, BrowserContext, Page, expect
from report_story import IDS, settle_report_story
from warehouses import ephemeral_warehouse

from stitch_pipeline.report import write_person, write_reports
from stitch_pipeline.stitching.person import person_history

pytestmark = pytest.mark.slow

ANN = IDS[3]
Scheme = Literal["light", "dark"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("report")
    with ephemeral_warehouse(directory) as warehouse:
        settle_report_story(warehouse)
        write_reports(warehouse.settings, directory / "reports")
        write_person(person_history(warehouse.settings, "shop", user_id=ANN), directory / "reports" / "person.html")
    return directory / "reports"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


class Reader:
    """A browser that is offline, in another time zone than the days of the report."""

    def __init__(self, browser: Browser, width: int, scheme: Scheme) -> None:
        self.context: BrowserContext = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            offline=True,
            timezone_id="America/Los_Angeles",
        )
        self.requests: list[str] = []
        self.complaints: list[str] = []

    def open(self, path: Path, chart_count: int) -> Page:
        page = self.context.new_page()
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(path.as_uri())
        expect(page.locator(f"body[data-drawn='{chart_count}']")).to_be_visible(timeout=20_000)
        assert self.complaints == []
        assert {url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))} == set()
        return page


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (1440, "dark"), (390, "light"), (390, "dark")])
def test_pages_are_drawn_offline_and_fit(browser: Browser, directory: Path, width: int, scheme: Scheme) -> None:
    for name, charts in (("report-shop.html", 6), ("person.html", 1)):
        reader = Reader(browser, width, scheme)
        page = reader.open(directory / name, charts)
        assert page.locator(".chart svg").count() == charts
        overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert overflow <= 0, "something is wider than the screen"
        for chart in page.locator(".chart svg").all():
            drawn, place = chart.bounding_box(), chart.locator("xpath=../..").bounding_box()
            assert drawn
            assert place
            assert drawn["width"] >= 0.8 * (place["width"] - 50), "a chart uses the width of its card"
            assert drawn["height"] > 80
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 22, 29)"
        assert dark == (scheme == "dark")
        reader.context.close()


def test_charts_draw_the_numbers_in_utc(browser: Browser, directory: Path) -> None:
    reader = Reader(browser, 1440, "light")
    page = reader.open(directory / "report-shop.html", 6)
    visitors = page.locator("#chart-visitors")
    labels = visitors.locator("svg text").all_text_contents()
    assert [label for label in labels if "Mar" in label] == ["02 Mar", "03 Mar", "04 Mar"]
    tooltip = page.locator("#vg-tooltip-element")
    # A day is hovered anywhere above it, also far from its point.
    visitors.scroll_into_view_if_needed()
    box = visitors.locator("svg").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] - 16, box["y"] + box["height"] / 2)
    expect(tooltip).to_contain_text("Mar 04, 2026")
    expect(tooltip).to_contain_text("before stitching")
    # Vega describes each mark for screen readers.
    bar = page.locator("#chart-devices path[aria-roledescription='bar']")
    assert bar.get_attribute("aria-label") == "devices: 2; persons: 1; share: 100.0%"
    bar.hover()
    expect(tooltip).to_contain_text("persons")
    expect(tooltip).to_contain_text("100.0%")
    reader.context.close()


def test_links_of_the_index_lead_to_pages_and_back(browser: Browser, directory: Path) -> None:
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto((directory / "index.html").as_uri())
    page.get_by_role("link", name="<script>alert('x')</script>").click()
    expect(page.locator("h1")).to_have_text("<script>alert('x')</script>")
    page.get_by_role("link", name="All projects").click()
    expect(page.locator("h1")).to_have_text("2 projects")
    context.close()


def test_the_timeline_says_which_login_decides(browser: Browser, directory: Path) -> None:
    reader = Reader(browser, 1440, "light")
    page = reader.open(directory / "person.html", 1)
    labels = [
        text.get_attribute("aria-label") or "" for text in page.locator("path[aria-roledescription='tick']").all()
    ]
    first = next(label for label in labels if "2026-03-02 12:00" in label and "credited to: ann-7731" in label)
    assert "by: link after" in first
    assert "#1 ann-7731 decides: the last link on the device within the lookback" in first
    reader.context.close()
