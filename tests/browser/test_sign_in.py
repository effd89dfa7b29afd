"""Sign-in with an API key."""

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.app.serving.conftest import Publish, publish
from tests.browser.browser_errors import BrowserErrors
from tests.browser.conftest import OpenPage
from tests.browser.seeded_service import BEST, RUNNING, SeededService
from tests.browser.service import Service

__all__ = ["publish"]


def sign_in(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()


def test_sign_in_continues_to_the_requested_page(
    locked: str, api_key: str, open_page: OpenPage, seeded: SeededService
) -> None:
    page = open_page(locked)
    path = f"/?q={BEST[:4]}&state=succeeded"
    page.goto(path)
    expect(page).to_have_url(re.compile("/sign-in"))
    sign_in(page, api_key)
    expect(page).to_have_url(f"{locked}{path}")
    expect(page.get_by_role("link", name=BEST, exact=True)).to_be_visible()


def test_wrong_key_shows_an_error(
    locked: str, api_key: str, open_page: OpenPage, browser_errors: BrowserErrors
) -> None:
    browser_errors.expect(401)
    page = open_page(locked)
    page.goto("/sign-in")
    wrong = api_key[:-1] + ("a" if api_key[-1] != "a" else "b")
    for sent in (wrong, "no key at all"):
        sign_in(page, sent)
        field = page.get_by_label("API key")
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(field).to_have_accessible_description(re.compile("."))
        expect(page).to_have_title(re.compile("Sign in"))
    assert page.context.cookies() == []


def test_sign_out(locked: str, api_key: str, open_page: OpenPage) -> None:
    page = open_page(locked)
    page.goto("/")
    sign_in(page, api_key)
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(re.compile("/sign-in"))
    page.goto("/")
    expect(page).to_have_url(re.compile("/sign-in"))


def test_cookie_alone_is_read_only(
    locked: str,
    api_key: str,
    open_page: OpenPage,
    seeded: SeededService,
    browser_errors: BrowserErrors,
) -> None:
    """A service on another port receives the cookie, but neither the key nor the CSRF token."""
    browser_errors.expect(401)
    page = open_page(locked)
    page.goto("/")
    sign_in(page, api_key)
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    [cookie] = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert api_key not in cookie["value"]
    job = f"/v1/jobs/{seeded.jobs[RUNNING]}"
    status = "([method, path]) => fetch(path, {method}).then(response => response.status)"
    assert page.evaluate(status, ["GET", job]) == 200
    for call in (["POST", f"{job}/cancel"], ["DELETE", job], ["POST", "/v1/jobs"]):
        assert page.evaluate(status, call) == 401
    assert seeded.service.get(job)["cancel_requested_at"] is None


def test_new_tab_can_write(
    locked: str, api_key: str, open_page: OpenPage, browser_errors: BrowserErrors
) -> None:
    browser_errors.expect(422)
    page = open_page(locked)
    page.goto("/")
    sign_in(page, api_key)
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Try it").click(modifiers=["ControlOrMeta"])
    tab = opened.value
    script = (
        "path => import('/static/api.js')"
        ".then(({call}) => call('POST', path, {}))"
        ".catch(problem => problem.code)"
    )
    assert tab.evaluate(script, "/v1/sweeps") == "validation_failed"


def test_a_filled_form_is_sent_after_a_new_sign_in_in_another_tab(
    idle: Service,
    publish: Publish,
    open_page: OpenPage,
    browser_errors: BrowserErrors,
    tmp_path: Path,
) -> None:
    """The file by one script, then the run by another."""
    browser_errors.expect(401)
    publish()
    url = idle.open_api(auth="on")
    key = idle.create_key()
    page = open_page(url)
    page.goto("/predictions")
    sign_in(page, key)
    (file := tmp_path / "inbox.csv").write_text("text\na good film\n")
    page.get_by_label("File", exact=True).set_input_files(file)
    tab = page.context.new_page()
    tab.goto("/")
    tab.get_by_role("button", name="Sign out").click()
    expect(tab).to_have_url(re.compile("/sign-in"))
    predict = page.get_by_role("button", name="Predict")
    predict.click()
    expect(page.locator("#upload-error")).to_contain_text("This browser session has ended")
    sign_in(tab, key)
    expect(tab.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
    predict.click()
    expect(page).to_have_url(re.compile(r"/predictions/[0-9a-f-]{36}$"))
