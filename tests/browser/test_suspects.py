"""Labels worth a second look: keep and change them by keyboard, save a version, on a phone too."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.app.label_review.conftest import WRONG, WRONG_LABELS
from tests.browser.browser_errors import BrowserErrors
from tests.browser.conftest import OpenPage
from tests.browser.service import Service
from tests.browser.test_accessibility import FIND_OVERFLOW, PHONE, violations
from tests.browser.test_sign_in import sign_in

DATASET_URL = re.compile(r"/datasets/[0-9a-f-]{36}$")


@pytest.fixture
def dataset(idle: Service, tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    """A dataset with three wrong labels, new for each test."""
    file = tmp_path / "notes.csv"
    file.write_text(WRONG_LABELS)
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:60]
    return idle.upload(file, name)


def open_suspects(page: Page, dataset: dict[str, Any]) -> None:
    page.goto(f"/datasets/{dataset['ref']}")
    expect(page.get_by_role("heading", name="Labels worth a second look")).to_be_visible()
    page.get_by_role("link", name="Look for them").click()
    expect(page.locator(".suspect").first).to_be_focused()


def row_of(card: Any) -> int:
    return int(json.loads(card.get_attribute("data-change"))["row"])


def test_labels_are_corrected_by_keyboard(
    dataset: dict[str, Any], idle: Service, open_page: OpenPage
) -> None:
    page = open_page(idle.url)
    open_suspects(page, dataset)
    cards = page.locator(".suspect")
    rows = [row_of(cards.nth(i)) for i in range(3)]
    assert set(rows) == set(WRONG)
    save = page.get_by_role("button", name="Save as version 2")
    status = page.locator(".suspects output")
    expect(save).to_be_disabled()
    page.keyboard.press("c")
    expect(cards.nth(0).locator("[data-decide=change]")).to_have_attribute("aria-pressed", "true")
    expect(cards.nth(1)).to_be_focused()
    page.keyboard.press("k")
    expect(status).to_have_text(re.compile("1 changed, 1 kept"))
    page.keyboard.press("c")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("u")
    expect(status).to_have_text(re.compile("1 changed, 1 kept"))
    expect(cards.nth(2).locator("[aria-pressed=true]")).to_have_count(0)
    page.keyboard.press("c")
    expect(status).to_have_text(re.compile("2 changed, 1 kept"))
    save.click()
    expect(page).to_have_url(DATASET_URL)
    expect(page.locator("h1")).to_contain_text("version 2")
    diff = idle.get(f"/v1/datasets/{dataset['name']}/diff")
    assert {each["row"] for each in diff["changes"]} == {rows[0], rows[2]}
    assert diff["kept"] == 1
    page.get_by_role("link", name="what changed").click()
    expect(page.locator("#changes")).to_contain_text("pos")
    page.goto(f"/datasets/{dataset['name']}")
    page.get_by_role("link", name="Look for them").click()
    expect(page.locator("#suspects")).to_contain_text("No label of 120 rows is suspect any more")


def test_decisions_stay_when_more_rows_are_shown(
    idle: Service, open_page: OpenPage, browser_errors: BrowserErrors, tmp_path: Path
) -> None:
    words = {"a": "good fine", "b": "bad poor", "c": "long slow"}
    rows = [(f"{words['abc'[i % 3]]} word{i}", "abc"[(i + (i % 10 == 0)) % 3]) for i in range(700)]
    file = tmp_path / "many.csv"
    file.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    page = open_page(idle.url)
    open_suspects(page, idle.upload(file, "many"))
    cards, status = page.locator(".suspect"), page.locator(".suspects output")
    expect(cards).to_have_count(50)
    page.keyboard.press("c")
    page.keyboard.press("k")
    cards.nth(2).locator("select").select_option(index=1)
    expect(status).to_have_text(re.compile("2 changed, 1 kept"))
    other = cards.nth(2).locator("select").input_value()
    more, alert = page.get_by_role("link", name="Show more"), page.get_by_role("alert")
    browser_errors.expect(503)
    busy: dict[str, Any] = {
        "status": 503,
        "content_type": "text/html",
        "body": "<main><p>Busy.</p></main>",
    }
    signed_out: dict[str, Any] = {"status": 303, "headers": {"Location": "/"}}
    answers = iter((busy, signed_out))
    page.route("**/suspects?*", lambda route: route.fulfill(**next(answers)), times=2)
    for message in ("Busy.", "Sign in again"):
        more.click()
        expect(alert).to_contain_text(message)
        expect(cards.first).to_be_visible()
        expect(status).to_have_text(re.compile("2 changed, 1 kept"))
    more.click()
    expect(cards).not_to_have_count(50)
    expect(alert).to_be_hidden()
    expect(status).to_have_text(re.compile("2 changed, 1 kept"))
    expect(cards.nth(2).locator("select")).to_have_value(other)


def test_buttons_and_kept_labels(
    dataset: dict[str, Any], idle: Service, open_page: OpenPage
) -> None:
    page = open_page(idle.url)
    open_suspects(page, dataset)
    first = page.locator(".suspect").first
    row = row_of(first)
    keep = first.get_by_role("button", name=re.compile("^Keep"))
    keep.click()
    expect(keep).to_have_attribute("aria-pressed", "true")
    keep.click()
    expect(keep).to_have_attribute("aria-pressed", "false")
    expect(page.get_by_role("button", name="Save as version 2")).to_be_disabled()
    keep.click()
    with page.expect_navigation():
        page.get_by_role("button", name="Save as version 2").click()
    loaded = page.locator(".suspect").first
    expect(loaded).to_be_visible()  # the stored list, without a click
    expect(page.locator("#suspects")).to_contain_text("1 that was kept")
    assert row not in {row_of(each) for each in page.locator(".suspect").all()}
    assert idle.get(f"/v1/datasets/{dataset['name']}")["version"] == 1


def test_somebody_else_is_faster(
    dataset: dict[str, Any], idle: Service, open_page: OpenPage, browser_errors: BrowserErrors
) -> None:
    browser_errors.expect(409)
    page = open_page(idle.url)
    open_suspects(page, dataset)
    page.keyboard.press("c")
    change = {"row": 1, "label": "pos"}
    idle.post(f"/v1/datasets/{dataset['ref']}/corrections", {"changes": [change]})
    page.get_by_role("button", name="Save as version 2").click()
    expect(page.get_by_role("alert")).to_contain_text("is not the newest version")
    expect(page.locator(".suspects output")).to_contain_text("1 changed")
    page.locator(".suspect").first.get_by_role("button", name=re.compile("^Change")).click()


def test_on_a_phone_and_for_everybody(
    dataset: dict[str, Any], idle: Service, open_page: OpenPage
) -> None:
    page = open_page(idle.url, viewport=PHONE, has_touch=True)
    page.goto(f"/datasets/{dataset['ref']}/suspects")
    card = page.locator(".suspect").first
    card.get_by_role("button", name=re.compile("^Change")).tap()
    expect(page.locator(".suspects output")).to_contain_text("1 changed")
    card.locator("summary").tap()
    expect(card.locator(".finding-examples li").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], page.evaluate(
        FIND_OVERFLOW
    )
    assert violations(page) == []


def test_signed_in_sessions_can_save(
    dataset: dict[str, Any], idle: Service, open_page: OpenPage
) -> None:
    url = idle.open_api(auth="on")
    key = idle.create_key()
    page = open_page(url)
    page.goto(f"/datasets/{dataset['ref']}/suspects")
    sign_in(page, key)
    expect(page).to_have_url(re.compile("/suspects$"))
    page.wait_for_load_state()
    page.locator(".suspect").first.focus()
    page.keyboard.press("c")
    path = f"/v1/datasets/{dataset['ref']}/corrections"
    answer = page.request.post(f"{url}{path}", data={"keep": [1]})
    assert answer.status == 401  # the cookie alone is read-only
    page.get_by_role("button", name="Save as version 2").click()
    expect(page).to_have_url(DATASET_URL)
    assert idle.get(f"/v1/datasets/{dataset['name']}/diff")["corrected_by"] == "ada"
