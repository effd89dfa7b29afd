"""Models: versions, where they come from, promote and roll back with one click and a question."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.scene import BEST, MODEL, SMALL, Scene
from tests.browser.stays import stays


@pytest.fixture
def model(page: Page, scene: Scene) -> Page:
    """Its page, with version 1 in production."""
    scene.promote(1)
    page.goto(f"/models/{MODEL}")
    return page


def in_production(scene: Scene) -> int:
    aliases = scene.service.get(f"/v1/models/{MODEL}")["aliases"]
    return int(aliases["production"])


def test_the_list_says_which_version_answers_and_how_well(page: Page, scene: Scene) -> None:
    scene.promote(1)
    page.goto("/models")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=MODEL))
    expect(row).to_contain_text(re.compile(r"production.*1"))
    accuracy = scene.service.get(f"/v1/jobs/{scene.jobs[BEST]}")["summary"]["test"]["accuracy"]
    expect(row).to_contain_text(f"{accuracy * 100:.1f} %")
    row.get_by_role("link", name=MODEL).click()
    expect(page.get_by_role("heading", name=MODEL, level=1)).to_be_visible()


def test_a_version_leads_back_to_its_job_and_its_data(model: Page, scene: Scene) -> None:
    versions = scene.service.get(f"/v1/models/{MODEL}")["versions"]
    numbers = {version["job_id"]: version["number"] for version in versions}
    for name in (BEST, SMALL):  # which of them ended first is not said
        row = model.locator(f"#version-{numbers[scene.jobs[name]]}")
        expect(row).to_contain_text(name)
        row.get_by_text("More", exact=False).first.click()
        expect(row.get_by_role("link", name="reviews")).to_be_visible()
        link = row.get_by_role("link", name=name).last
        expect(link).to_have_attribute("href", f"/jobs/{scene.jobs[name]}")


def test_promoting_asks_first_and_no_leaves_it(model: Page, scene: Scene) -> None:
    model.get_by_role("button", name="Promote version 2").click()
    expect(model.get_by_role("dialog")).to_contain_text("Promote version 2?")
    model.get_by_role("button", name="No, leave it").click()
    expect(model.get_by_role("dialog")).to_be_hidden()
    assert in_production(scene) == 1


def test_promote_and_roll_back(model: Page, scene: Scene) -> None:
    with stays(model):
        model.get_by_role("button", name="Promote version 2").click()
        model.get_by_role("dialog").get_by_role("button", name="Promote").click()
        expect(model.locator("#version-2")).to_contain_text("production")
        expect(model.locator("#version-1")).not_to_contain_text("production")
        assert in_production(scene) == 2

        model.get_by_role("button", name=re.compile("^Roll .*back to 1")).click()
        model.get_by_role("dialog").get_by_role("button", name="Roll").click()
        expect(model.locator("#version-1")).to_contain_text("production")
        expect(model.locator("#version-2")).not_to_contain_text("production")
        assert in_production(scene) == 1


def test_the_keyboard_alone_promotes_and_finds_its_way_back(model: Page, scene: Scene) -> None:
    button = model.get_by_role("button", name="Promote version 2")
    button.focus()
    model.keyboard.press("Enter")
    expect(model.get_by_role("dialog")).to_be_visible()
    model.keyboard.press("Escape")
    expect(model.get_by_role("dialog")).to_be_hidden()
    expect(button).to_be_focused()
    assert in_production(scene) == 1
