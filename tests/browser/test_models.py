"""Models: versions, provenance, promotion and rollback with confirmation."""

import re

import pytest
from playwright.sync_api import Page, Route, expect

from tests.app.serving.conftest import Publish, publish
from tests.app.web.finished_jobs import make_verdict
from tests.browser.browser_errors import BrowserErrors
from tests.browser.conftest import OpenPage
from tests.browser.no_reload import no_reload, refresh
from tests.browser.seeded_service import BEST, MODEL, SMALL, SeededService
from tests.browser.service import Service
from tests.job_rows import MANIFEST

__all__ = ["publish"]


@pytest.fixture
def model(page: Page, seeded: SeededService) -> Page:
    """The page of the model, with version 1 in production."""
    seeded.promote(1)
    page.goto(f"/models/{MODEL}")
    return page


def in_production(seeded: SeededService) -> int:
    aliases = seeded.service.get(f"/v1/models/{MODEL}")["aliases"]
    return int(aliases["production"])


def test_list_shows_the_production_version(page: Page, seeded: SeededService) -> None:
    seeded.promote(1)
    page.goto("/models")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=MODEL))
    expect(row).to_contain_text(re.compile(r"production.*1"))
    accuracy = seeded.service.get(f"/v1/jobs/{seeded.jobs[BEST]}")["summary"]["test"]["accuracy"]
    expect(row).to_contain_text(f"{accuracy * 100:.1f}%")
    row.get_by_role("link", name=MODEL).click()
    expect(page.get_by_role("heading", name=MODEL, level=1)).to_be_visible()


def test_version_links_to_its_job_and_data(model: Page, seeded: SeededService) -> None:
    versions = seeded.service.get(f"/v1/models/{MODEL}")["versions"]
    numbers = {version["job_id"]: version["number"] for version in versions}
    for name in (BEST, SMALL):  # the order in which they finished varies
        row = model.locator(f"#version-{numbers[seeded.jobs[name]]}")
        expect(row).to_contain_text(name)
        row.get_by_text("More", exact=False).first.click()
        expect(row.get_by_role("link", name="reviews")).to_be_visible()
        link = row.get_by_role("link", name=name).last
        expect(link).to_have_attribute("href", f"/jobs/{seeded.jobs[name]}")


def test_promotion_can_be_declined(model: Page, seeded: SeededService) -> None:
    model.get_by_role("button", name="Promote version 2").click()
    expect(model.get_by_role("dialog")).to_contain_text("Promote version 2 to production")
    model.get_by_role("button", name="Go back").click()
    expect(model.get_by_role("dialog")).to_be_hidden()
    assert in_production(seeded) == 1


def test_promote_and_roll_back(model: Page, seeded: SeededService) -> None:
    with no_reload(model):
        model.get_by_role("button", name="Promote version 2").click()
        model.get_by_role("dialog").get_by_role("button", name="Promote").click()
        expect(model.locator("#version-2")).to_contain_text("production")
        expect(model.locator("#version-1")).not_to_contain_text("production")
        assert in_production(seeded) == 2

        model.get_by_role("button", name=re.compile("^Roll .*back to 1")).click()
        model.get_by_role("dialog").get_by_role("button", name="Roll").click()
        expect(model.locator("#version-1")).to_contain_text("production")
        expect(model.locator("#version-2")).not_to_contain_text("production")
        assert in_production(seeded) == 1


def test_dialog_works_with_the_keyboard(model: Page, seeded: SeededService) -> None:
    button = model.get_by_role("button", name="Promote version 2")
    button.focus()
    model.keyboard.press("Enter")
    expect(model.get_by_role("dialog")).to_be_visible()
    model.keyboard.press("Escape")
    expect(model.get_by_role("dialog")).to_be_hidden()
    expect(button).to_be_focused()
    assert in_production(seeded) == 1


def test_use_elsewhere_copies_what_works_for_the_version(
    model: Page, seeded: SeededService
) -> None:
    model.context.grant_permissions(["clipboard-read", "clipboard-write"])
    onnx = model.locator("#use-onnx")
    onnx.get_by_text("ONNX Runtime", exact=True).click()
    onnx.get_by_role("button", name="Copy Shell for ONNX Runtime").click()
    expect(onnx.get_by_role("button", name="Copied Shell for ONNX Runtime")).to_be_visible()
    copied = model.evaluate("navigator.clipboard.readText()")
    export = f"loraworks models export --url {seeded.service.url}"
    assert copied == f"{export} {MODEL} --format onnx --out {MODEL}-onnx"
    link = onnx.get_by_role("link", name="More about it")
    expect(link).to_have_attribute("href", "/guide/how-to/exchange.md")


def test_promotion_of_a_model_that_has_learned_nothing_is_marked(
    idle: Service, publish: Publish, open_page: OpenPage
) -> None:
    verdict = make_verdict(learned=False)
    metrics = {"verdict": verdict.model_dump(mode="json")}
    publish("guesses", promote=False, manifest={**MANIFEST, "metrics": metrics})
    publish("guesses", promote=False)  # without a verdict
    page = open_page(idle.url)
    page.goto("/models/guesses")
    dialog, back = page.get_by_role("dialog"), page.get_by_role("button", name="Go back")
    page.locator("#alias").fill("production")
    page.locator("#number").select_option("1")
    for name in ("Promote version 1", "Set alias"):
        page.get_by_role("button", name=name).click()
        for sentence in (verdict.headline, *verdict.sentences):
            expect(dialog).to_contain_text(sentence)
        expect(dialog.get_by_text(verdict.headline)).to_have_css("color", "rgb(179, 38, 30)")
        back.click()
    page.get_by_role("button", name="Promote version 2").click()
    expect(dialog).to_contain_text("Promote version 2")
    expect(dialog).not_to_contain_text("learned nothing")
    expect(dialog).not_to_have_class(re.compile("learned-nothing"))


def test_live_updates_keep_a_running_request_its_error_and_the_chosen_version(
    idle: Service, publish: Publish, open_page: OpenPage, browser_errors: BrowserErrors
) -> None:
    publish("mails")
    publish("mails")
    page = open_page(idle.url)
    page.goto("/models/mails")
    pending: list[Route] = []
    page.route("**/aliases/canary", lambda route: pending.append(route))
    alias, version = page.locator("#alias"), page.locator("#number")
    button = page.get_by_role("button", name="Set alias")
    alias.fill("canary")
    version.select_option("1")
    button.click()
    with page.expect_request("**/aliases/canary"):
        page.get_by_role("button", name="Yes").click()
    publish("mails")
    refresh(page)
    expect(page.locator("#version-3")).to_be_visible()
    expect(button).to_be_disabled()
    expect(version).to_have_value("1")
    browser_errors.expect(409)
    pending[0].fulfill(status=409, json={"detail": "The version cannot be loaded."})
    expect(button).to_be_enabled()
    refresh(page)
    expect(alias).to_have_attribute("aria-invalid", "true")
