"""User input is rendered as text on every page, never as markup."""

from typing import NamedTuple

import pytest
from playwright.sync_api import Page, expect

from tests.browser import upload_files
from tests.browser.browser_errors import BrowserErrors
from tests.browser.no_reload import refresh
from tests.browser.seeded_service import BEST, DIVERGING, SeededService

MARKUP = '<img src=x onerror="window.caught=1">'
FILE_NAME = "<img src=x onerror=caught=1>.csv"
NAME = "hostile"  # for fields that accept only a slug
SCRIPT_HAS_RUN = (
    "() => window.caught !== undefined || document.querySelectorAll('[onerror]').length > 0"
)


class HostileIds(NamedTuple):
    """Ids of objects with markup in every free-text field."""

    job: str
    failed: str
    sweep: str


@pytest.fixture(scope="session")
def hostile(seeded: SeededService, tmp_path_factory: pytest.TempPathFactory) -> HostileIds:
    """A dataset, jobs, a model and a sweep with markup in every free-text field."""
    rows = [(f"{MARKUP} is {word} {i}", label) for i in range(20) for word, label in LABELS.items()]
    path = upload_files.write(
        tmp_path_factory.mktemp("hostile") / FILE_NAME, rows, upload_files.COLUMNS
    )
    seeded.service.upload(path, NAME)
    spec = seeded.quick_spec(data={"source": NAME, "max_length": 48}, method={"type": "lora"})
    names = {"name": MARKUP, "metadata": {"from": MARKUP}}
    tagged = {"tags": ["<img src=x onerror=caught=1>"], "notes": MARKUP}
    job = seeded.service.submit(**spec, **names, **tagged, register_as=NAME)
    failed = seeded.service.submit(
        **{**spec, "method": {"type": "full"}, "optim": DIVERGING}, **names
    )
    sweep_body = {"job": spec, "space": {"method.r": [2, 4]}, **names}
    sweep = str(seeded.service.post("/v1/sweeps", sweep_body)["id"])
    seeded.service.wait_for_success(job)
    seeded.wait_for_sweep(sweep)
    return HostileIds(job, failed, sweep)


LABELS = {"good": MARKUP, "bad": f"{MARKUP} not"}
PAGES = {
    "/": True,  # whether the markup is visible as text
    "/?q=%3Cimg": True,
    "/?q=%3Cimg%20no": True,
    "/jobs/new?from={job}": True,
    "/jobs/new?data=%3Cimg%20src=x%20onerror=caught=1%3E": False,
    "/?tag=%3Cimg%20src=x%20onerror=caught=1%3E": True,
    "/jobs/{job}": True,
    "/jobs/{failed}": True,
    "/compare?job={job}&job={best}": True,
    "/compare?job={job}&job=%3Cimg%20src=x%20onerror=caught=1%3E": False,
    "/sweeps": True,
    "/sweeps/{sweep}": True,
    "/models": False,
    "/models/hostile": True,
    "/models/%3Cimg%20src=x%20onerror=caught=1%3E": False,
    "/try?model=hostile:1": False,
    "/try?model=%3Cimg%20src=x%20onerror=caught=1%3E": False,
    "/datasets": True,
    "/datasets/hostile": True,
    "/datasets/%3Cimg%20src=x%20onerror=caught=1%3E": False,
    "/%3Cimg%20src=x%20onerror=caught=1%3E": False,
}


@pytest.mark.parametrize("address", PAGES)
def test_pages_escape_markup(
    address: str,
    page: Page,
    seeded: SeededService,
    hostile: HostileIds,
    browser_errors: BrowserErrors,
) -> None:
    browser_errors.expect(404, 422)  # invalid names
    page.goto(address.format(**hostile._asdict(), best=seeded.jobs[BEST]))
    if PAGES[address]:
        shown = page.get_by_text("<img src=x", exact=False).or_(
            page.locator("input[value*='<img']")
        )
        expect(shown.first).to_be_visible()
    if page.locator("[data-live]").count():
        refresh(page)
    assert not page.evaluate(SCRIPT_HAS_RUN)


def test_predictions_escape_markup(
    page: Page, hostile: HostileIds, browser_errors: BrowserErrors
) -> None:
    browser_errors.expect(429, 503)
    page.goto("/try?model=hostile:1")
    page.get_by_label("Text", exact=True).fill(f"{MARKUP} is good")
    answer = page.locator("#answer-model")
    expect(answer.locator(".verdict")).to_contain_text(MARKUP)
    expect(answer.locator(".explained-text")).to_contain_text(MARKUP)
    assert not page.evaluate(SCRIPT_HAS_RUN)


def test_confirmation_dialog_escapes_markup(page: Page, hostile: HostileIds) -> None:
    page.goto(f"/sweeps/{hostile.sweep}")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_contain_text(MARKUP)
    assert not page.evaluate(SCRIPT_HAS_RUN)
