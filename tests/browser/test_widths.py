"""The page of a finished job at any width, with any number of labels: nothing is cut off."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.resources import Resources, open_resources
from tests.app.web.finished import succeed
from tests.browser.conftest import Visit
from tests.browser.service import Service
from tests.browser.test_every_page import WIDE, faults

WIDTHS = (320, 390, 768, 1280, 1440, 1920)
LONG = "complaints about the delivery of parcels that nobody has ordered"
LABELS = {
    2: ("no", "yes"),
    3: ("negative", "neutral", "positive"),
    7: tuple(f"{LONG}{i}" for i in range(7)),
    12: tuple(f"label {i}" for i in range(12)),
    13: tuple(f"{'x' * 200}{i}" for i in range(13)),
    200: tuple(f"intent_{i}" for i in range(200)),
}
FITS = {2: 320, 3: 320, 7: 390, 12: 1280}  # from where on the table needs no scrolling


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service without a worker."""
    made = Service(tmp_path_factory.mktemp("idle") / "installation")
    yield made
    made.close()


@pytest.fixture(scope="module")
def resources(idle: Service) -> Iterator[Resources]:
    opened = open_resources(idle.installation.settings)
    yield opened
    opened.close()


def scrolls(page: Page) -> bool:
    """Whether some columns are to be seen only after scrolling."""
    overflows = "(places) => places.some((each) => each.scrollWidth > each.clientWidth)"
    return bool(page.locator(".wide:visible:has(.matrix, #by-label)").evaluate_all(overflows))


@pytest.mark.parametrize("count", LABELS)
def test_a_confusion_matrix_can_be_read(
    count: int, idle: Service, resources: Resources, visit: Visit, tmp_path: Path
) -> None:
    job_id = succeed(
        idle.client.http, resources, right=4 * count, of=5 * count, labels=LABELS[count]
    )
    page = visit(idle.url)
    page.goto(f"/jobs/{job_id}")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.locator("#outcome").screenshot(path=tmp_path / f"{width}.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, page.evaluate(WIDE)
        if count in FITS:
            assert scrolls(page) is (width < FITS[count]), width
        else:
            box = page.locator("#confusion").bounding_box()
            assert box is not None
            assert 250 < box["width"] == box["height"] <= width
            expect(page.locator("#confusions tbody tr")).to_have_count(12)
    assert faults(page) == []


def test_a_phone_shows_a_job_in_a_few_screens(
    idle: Service, resources: Resources, visit: Visit
) -> None:
    labels = LABELS[3]
    job_id = succeed(idle.client.http, resources, labels=labels, right=60, of=90, texts=LONG * 6)
    page = visit(idle.url, viewport={"width": 390, "height": 844})
    page.goto(f"/jobs/{job_id}")
    expect(page.locator("#figures")).to_be_in_viewport()
    height = page.evaluate("document.documentElement.scrollHeight")
    assert height < 4 * 844, height
