"""Webhooks: create one, see its secret once, its deliveries, and replay them."""

import re
from collections.abc import Iterator

import pytest
import standardwebhooks
from playwright.sync_api import Page, expect

from tests.browser.browser_errors import BrowserErrors
from tests.browser.conftest import OpenPage
from tests.browser.service import Service
from tests.browser.test_accessibility import FIND_OVERFLOW, PHONE, SCHEMES, violations
from tests.webhook_receiver import Receiver, receiving

ALLOWED = {"webhook_allowed_hosts": "127.0.0.1"}
SECRET = re.compile(r"whsec_\S{40,}")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with a worker, both of which allow receivers on this machine."""
    service = Service(tmp_path_factory.mktemp("webhooks") / "installation")
    service.installation.worker("nothing", **ALLOWED)
    yield service.open_api(**ALLOWED)
    service.close()


@pytest.fixture
def page(open_page: OpenPage, url: str) -> Page:
    page = open_page(url)
    page.goto("/webhooks")
    return page


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def create(page: Page, url: str, *events: str, description: str = "") -> str:
    """Create a webhook, and return its secret."""
    page.get_by_label("URL").fill(url)
    page.get_by_label("Description").fill(description)
    for event in events:
        page.get_by_label(event, exact=True).check()
    page.get_by_role("button", name="Create").click()
    expect(page.locator("#secret")).to_have_text(SECRET)
    return page.locator("#secret").inner_text()


def follow(page: Page, name: str) -> None:
    """Open the page of a webhook, and wait until its scripts are there."""
    page.get_by_role("row", name=name).get_by_role("link").click()
    page.wait_for_url("**/webhooks/*-*")


def test_from_creation_to_replay(page: Page, receiver: Receiver) -> None:
    secret = create(page, receiver.url, "job.failed", "sweep.finished", description="chat")
    expect(page.locator("#new-secret")).to_be_focused()
    row = page.get_by_role("row", name=receiver.url)
    expect(row).to_contain_text("job.failed, sweep.finished")
    expect(page.get_by_label("URL")).to_have_value("")
    follow(page, receiver.url)
    expect(page.get_by_role("heading", name="chat")).to_be_visible()
    expect(page.locator("#new-secret")).to_be_hidden()
    receiver.statuses = [500]
    page.get_by_role("button", name="Send test event").click()
    deliveries = page.locator("#deliveries")
    expect(deliveries).to_contain_text("The receiver answered with status 500.")
    expect(deliveries).to_contain_text("next attempt")
    page.get_by_role("button", name="Replay").click()
    expect(deliveries).to_contain_text("delivered")
    for request in receiver.wait(2):
        assert standardwebhooks.Webhook(secret).verify(request.body, request.headers)
    page.get_by_label("State").select_option("failed")
    expect(deliveries).to_contain_text("No deliveries in this state.")


def test_rotate_disable_and_delete(page: Page, receiver: Receiver) -> None:
    secret = create(page, receiver.url, description="to rotate")
    follow(page, "to rotate")
    page.get_by_role("button", name="Rotate secret").click()
    page.locator("#confirm-yes").click()
    expect(page.locator("#secret")).to_have_text(SECRET)
    assert page.locator("#secret").inner_text() != secret
    expect(page.locator("#webhook")).to_contain_text("signs as well until")
    page.get_by_role("button", name="Disable").click()
    page.locator("#confirm-yes").click()
    expect(page.locator("#webhook")).to_contain_text("disabled")
    expect(page.get_by_role("button", name="Send test event")).to_have_count(0)
    page.get_by_role("button", name="Enable").click()
    expect(page.locator("#webhook")).to_contain_text("enabled")
    page.get_by_role("button", name="Delete").click()
    page.locator("#confirm-yes").click()
    page.wait_for_url("**/webhooks")
    expect(page.get_by_role("row", name="to rotate")).to_have_count(0)


def test_errors_are_shown_at_the_field(page: Page, browser_errors: BrowserErrors) -> None:
    browser_errors.expect(422)
    field, error = page.get_by_label("URL"), page.locator("#webhook-error")
    for bad, message in (
        ("", "must not be empty"),
        ("http://example.com", "must start with https://"),
        ("https://10.0.0.1", "which is not public"),
    ):
        field.fill(bad)
        page.get_by_role("button", name="Create").click()
        expect(error).to_contain_text(message)
        expect(field).to_be_focused()
        expect(field).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#new-secret")).to_be_hidden()


def test_pages_are_accessible_and_fit_a_phone(page: Page, receiver: Receiver) -> None:
    receiver.statuses = [500]
    create(page, receiver.url, description="to look at")
    for name in ("list", "webhook"):
        if name == "webhook":
            follow(page, "to look at")
            page.get_by_role("button", name="Send test event").click()
            expect(page.locator("#deliveries")).to_contain_text("status 500")
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            assert violations(page) == [], (name, scheme)
        before = page.viewport_size
        page.set_viewport_size(PHONE)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["width"], page.evaluate(FIND_OVERFLOW)
        assert before is not None
        page.set_viewport_size(before)
