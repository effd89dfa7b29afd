"""Every page, light and dark: no serious accessibility violation, no overflow on a phone.

Screenshots are saved to docs/images if `UPDATE_DOCS=1` is set, else to a temporary folder.
"""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, ViewportSize, expect

from tests.browser.browser_errors import BrowserErrors
from tests.browser.conftest import OpenPage
from tests.browser.seeded_service import (
    BEST,
    FAILED,
    LAST,
    RUNNING,
    SCREENSHOTS,
    SMALL,
    SeededService,
)
from tests.browser.service import Service

DOCS = Path(__file__).parents[2] / "docs" / "images"
SCHEMES: tuple[Literal["light"], Literal["dark"]] = ("light", "dark")
PHONE: ViewportSize = {"width": 375, "height": 740}
TEXT = "A warm and funny film, but two hours of it are one too many."
PAGES = {
    "first-visit": "/",
    "sign-in": "/sign-in",
    "jobs": "/",
    "new-job": "/jobs/new?data=reviews",
    "job": "/jobs/{best}",
    "job-running": "/jobs/{running}",
    "job-failed": "/jobs/{failed}",
    "compare": "/compare?job={best}&job={small}&job={last}",
    "sweeps": "/sweeps",
    "sweep": "/sweeps/{sweep}",
    "models": "/models",
    "model": "/models/sentiment",
    "review": "/models/sentiment/review",
    "try": "/try?model=sentiment:1&compare=sentiment:2",
    "predictions": "/predictions",
    "prediction": "/predictions/{prediction}",
    "datasets": "/datasets",
    "dataset": "/datasets/tickets",
    "labeling": "/labeling",
    "labeling-project": "/labeling/films",
    "label-texts": "/labeling/films/label",
    "webhooks": "/webhooks",
    "webhook": "/webhooks/{webhook}",
    "guide": "/guide",
    "document": "/guide/how-to/own-data.md",
    "missing": "/nothing",
}
# Enables an axe rule that is off by default; otherwise the package's defaults apply.
RULES = {"resultTypes": ["violations"], "rules": {"target-size": {"enabled": True}}}
FIND_OVERFLOW = """() => [...document.querySelectorAll("body *")]
  .filter((each) => !each.closest(".scroll-x, pre"))
  .filter((each) => each.getBoundingClientRect().right > innerWidth)
  .map((each) => each.outerHTML.slice(0, 100))"""

ShowPage = Callable[..., Page]


@pytest.fixture
def show_page(
    seeded: SeededService,
    empty: Service,
    locked: str,
    open_page: OpenPage,
    browser_errors: BrowserErrors,
) -> ShowPage:
    """Open a page by name, and wait until it is complete."""

    def show(name: str, **options: object) -> Page:
        page = open_page(
            {"first-visit": empty.url, "sign-in": locked}.get(name, seeded.service.url), **options
        )
        browser_errors.expect({"missing": 404, "try": 503}.get(name, 0))
        page.goto(page_path(name, seeded))
        if name in ("job", "job-running", "compare", "sweep"):
            expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
        if name == "new-job":
            expect(page.locator("#plan-time")).to_contain_text("about")
        if name == "label-texts":
            expect(page.locator("#text")).to_be_visible()
        if name == "dataset":
            expect(page.locator("#rows tbody")).to_be_visible()
        if name == "try":
            page.get_by_label("Text", exact=True).fill(TEXT)
            expect(page.locator(".explanation:visible")).to_have_count(2)
        return page

    return show


def page_path(name: str, seeded: SeededService) -> str:
    jobs = {"best": BEST, "small": SMALL, "last": LAST, "running": RUNNING, "failed": FAILED}
    ids = {key: seeded.jobs[job] for key, job in jobs.items()}
    others = {name: getattr(seeded, name) for name in ("sweep", "prediction", "webhook")}
    return PAGES[name].format(**ids, **others)


def violations(page: Page) -> list[str]:
    """Return serious and critical accessibility violations."""
    return [
        f"{each['id']}: {node['html']} {node['failureSummary']}"
        for each in Axe().run(page, options=RULES).response["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def save_screenshot(page: Page, path: Path) -> None:
    """Save a full-page screenshot."""
    png = page.screenshot(full_page=True, animations="disabled", caret="hide")
    Image.open(BytesIO(png)).convert("RGB").save(path, "WEBP", quality=80, method=6)


@pytest.fixture(scope="session")
def screenshot_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return DOCS if SCREENSHOTS else tmp_path_factory.mktemp("screenshots")


@pytest.mark.parametrize("name", PAGES)
def test_page_is_accessible_and_fits_a_phone(
    name: str,
    show_page: ShowPage,
    screenshot_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    page = show_page(name)
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        save_screenshot(page, screenshot_folder / f"page-{name}-{scheme}.webp")
        assert violations(page) == [], scheme
    page.set_viewport_size(PHONE)
    save_screenshot(page, tmp_path_factory.getbasetemp() / f"phone-{name}.webp")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE["width"], page.evaluate(FIND_OVERFLOW)
