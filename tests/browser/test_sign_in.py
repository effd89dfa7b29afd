"""Sign-in with an API key, where keys are on."""

import re

from playwright.sync_api import Page, expect

from tests.browser.complaints import Complaints
from tests.browser.conftest import Visit
from tests.browser.scene import BEST, HELD, Scene


def sign_in(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()


def test_one_is_asked_for_a_key_and_led_on_to_where_one_wanted_to_go(
    locked: str, key: str, visit: Visit, scene: Scene
) -> None:
    page = visit(locked)
    wanted = f"/?q={BEST[:4]}&state=succeeded"
    page.goto(wanted)
    expect(page).to_have_url(re.compile("/sign-in"))
    sign_in(page, key)
    expect(page).to_have_url(f"{locked}{wanted}")
    expect(page.get_by_role("link", name=BEST, exact=True)).to_be_visible()


def test_a_wrong_key_is_refused_and_says_so(
    locked: str, key: str, visit: Visit, complaints: Complaints
) -> None:
    complaints.expect(401)
    page = visit(locked)
    page.goto("/sign-in")
    wrong = key[:-1] + ("a" if key[-1] != "a" else "b")
    for sent in (wrong, "no key at all"):
        sign_in(page, sent)
        field = page.get_by_label("API key")
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(field).to_have_accessible_description(re.compile("."))
        expect(page).to_have_title(re.compile("Sign in"))
    assert page.context.cookies() == []


def test_who_signs_out_is_asked_for_the_key_again(locked: str, key: str, visit: Visit) -> None:
    page = visit(locked)
    page.goto("/")
    sign_in(page, key)
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(re.compile("/sign-in"))
    page.goto("/")
    expect(page).to_have_url(re.compile("/sign-in"))


def test_the_cookie_alone_reads_and_changes_nothing(
    locked: str, key: str, visit: Visit, scene: Scene, complaints: Complaints
) -> None:
    """A service on another port is sent it, but knows neither the key nor the page token."""
    complaints.expect(401)
    page = visit(locked)
    page.goto("/")
    sign_in(page, key)
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    [cookie] = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert key not in cookie["value"]
    job = f"/v1/jobs/{scene.jobs[HELD]}"
    status = "([method, path]) => fetch(path, {method}).then(answer => answer.status)"
    assert page.evaluate(status, ["GET", job]) == 200
    for call in (["POST", f"{job}/cancel"], ["DELETE", job], ["POST", "/v1/jobs"]):
        assert page.evaluate(status, call) == 401
    assert scene.service.get(job)["cancel_requested_at"] is None


def test_every_tab_of_who_signed_in_can_change_something(
    locked: str, key: str, visit: Visit, complaints: Complaints
) -> None:
    complaints.expect(422)
    page = visit(locked)
    page.goto("/")
    sign_in(page, key)
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
