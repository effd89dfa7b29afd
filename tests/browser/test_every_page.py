"""Each page, in light and dark: no serious fault of accessibility, and nothing cut off on a phone.

Pictures of them go to docs/images when `UPDATE_DOCS=1` is set, else into a temporary folder.
"""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, ViewportSize, expect

from tests.browser.complaints import Complaints
from tests.browser.conftest import Visit
from tests.browser.scene import BEST, FAILED, HELD, LAST, PICTURES, SMALL, Scene
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
    "job-running": "/jobs/{held}",
    "job-failed": "/jobs/{failed}",
    "compare": "/compare?job={best}&job={small}&job={last}",
    "sweeps": "/sweeps",
    "sweep": "/sweeps/{sweep}",
    "models": "/models",
    "model": "/models/sentiment",
    "try": "/try?model=sentiment:1&beside=sentiment:2",
    "predictions": "/predictions",
    "prediction": "/predictions/{prediction}",
    "datasets": "/datasets",
    "dataset": "/datasets/tickets",
    "guide": "/guide",
    "document": "/guide/how-to/own-data.md",
    "missing": "/nothing",
}
# Rules of axe that are off by themselves. Its own list of what to report is that of the package.
RULES = {"resultTypes": ["violations"], "rules": {"target-size": {"enabled": True}}}
WIDE = """() => [...document.querySelectorAll("body *")]
  .filter((each) => each.getBoundingClientRect().right > innerWidth && !each.closest(".wide, pre"))
  .map((each) => each.outerHTML.slice(0, 100))"""

Show = Callable[..., Page]


@pytest.fixture
def show(scene: Scene, empty: Service, locked: str, visit: Visit, complaints: Complaints) -> Show:
    """Opens a page by its name, and waits until all of it is there."""

    def open_page(name: str, **options: object) -> Page:
        page = visit(
            {"first-visit": empty.url, "sign-in": locked}.get(name, scene.service.url), **options
        )
        complaints.expect({"missing": 404, "try": 503}.get(name, 0))
        page.goto(address(name, scene))
        if name in ("job", "job-running", "compare", "sweep"):
            expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
        if name == "new-job":
            expect(page.locator("#plan-time")).to_contain_text("about")
        if name == "dataset":
            expect(page.locator("#rows tbody")).to_be_visible()
        if name == "try":
            page.get_by_label("Your text").fill(TEXT)
            expect(page.locator(".reasons:visible")).to_have_count(2)
        return page

    return open_page


def address(name: str, scene: Scene) -> str:
    jobs = {"best": BEST, "small": SMALL, "last": LAST, "held": HELD, "failed": FAILED}
    ids = {word: scene.jobs[job] for word, job in jobs.items()}
    return PAGES[name].format(**ids, sweep=scene.sweep, prediction=scene.prediction)


def faults(page: Page) -> list[str]:
    """Those that keep people out."""
    return [
        f"{each['id']}: {node['html']} {node['failureSummary']}"
        for each in Axe().run(page, options=RULES).response["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def keep(page: Page, path: Path) -> None:
    """A picture of the whole page."""
    png = page.screenshot(full_page=True, animations="disabled", caret="hide")
    Image.open(BytesIO(png)).convert("RGB").save(path, "WEBP", quality=80, method=6)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return DOCS if PICTURES else tmp_path_factory.mktemp("pictures")


@pytest.mark.parametrize("name", PAGES)
def test_nothing_keeps_anyone_out_or_is_cut_off(
    name: str, show: Show, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    page = show(name)
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        keep(page, pictures / f"page-{name}-{scheme}.webp")
        assert faults(page) == [], scheme
    page.set_viewport_size(PHONE)
    keep(page, tmp_path_factory.getbasetemp() / f"phone-{name}.webp")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE["width"], page.evaluate(WIDE)
