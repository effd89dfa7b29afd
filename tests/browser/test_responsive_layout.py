"""The page of a finished job at all widths, with few and many labels: no overflow."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.resources import Resources
from tests.app.web.finished_jobs import succeed
from tests.browser.conftest import OpenPage
from tests.browser.service import Service
from tests.browser.test_accessibility import FIND_OVERFLOW, violations

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
FITS_FROM = {
    2: 320,
    3: 320,
    7: 390,
    12: 1280,
}  # labels -> the width from which the table does not scroll


def scrolls(page: Page) -> bool:
    """Return whether some table scrolls horizontally."""
    overflows = "(elements) => elements.some((each) => each.scrollWidth > each.clientWidth)"
    return bool(
        page.locator(".scroll-x:visible:has(.matrix, #per-label-metrics)").evaluate_all(overflows)
    )


@pytest.mark.parametrize("count", LABELS)
def test_confusion_matrix(
    count: int, idle: Service, resources: Resources, open_page: OpenPage, tmp_path: Path
) -> None:
    job_id = succeed(
        idle.client.http, resources, right=4 * count, of=5 * count, labels=LABELS[count]
    )
    page = open_page(idle.url)
    page.goto(f"/jobs/{job_id}")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.locator("#evaluation").screenshot(path=tmp_path / f"{width}.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, page.evaluate(
            FIND_OVERFLOW
        )
        if count in FITS_FROM:
            assert scrolls(page) is (width < FITS_FROM[count]), width
        else:
            box = page.locator("#confusion").bounding_box()
            assert box is not None
            assert 250 < box["width"] == box["height"] <= width
            expect(page.locator("#confused-pairs tbody tr")).to_have_count(12)
    assert violations(page) == []


def test_job_page_is_short_on_a_phone(
    idle: Service, resources: Resources, open_page: OpenPage
) -> None:
    labels = LABELS[3]
    job_id = succeed(idle.client.http, resources, labels=labels, right=60, of=90, texts=LONG * 6)
    page = open_page(idle.url, viewport={"width": 390, "height": 844})
    page.goto(f"/jobs/{job_id}")
    expect(page.locator("#metrics")).to_be_in_viewport()
    height = page.evaluate("document.documentElement.scrollHeight")
    assert height < 4 * 844, height
