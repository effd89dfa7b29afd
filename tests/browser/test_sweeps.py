"""The page of a sweep: the grid updates live, and shows the winner at the end."""

import re

from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import OpenPage
from tests.browser.no_reload import no_reload
from tests.browser.seeded_service import JOB_TIMEOUT, SeededService
from tests.browser.service import Service


def test_grid_updates_live_and_shows_the_winner(page: Page, seeded: SeededService) -> None:
    sweep = seeded.start_sweep("live grid", optim={"epochs": 20, "batch_size": 16})
    page.goto(f"/sweeps/{sweep}")
    scores = page.locator("#grid td a").filter(has_text="%")
    with no_reload(page):
        expect(page.get_by_text(re.compile("[0-3] of 4 trials finished"))).to_be_visible()
        for number in (1, 4):
            expect(scores.nth(number - 1)).to_be_visible(timeout=JOB_TIMEOUT)
        expect(page.get_by_text("4 of 4 trials finished")).to_be_visible()
        expect(page.get_by_role("heading", name="Results", exact=True)).to_be_visible()
    winner = seeded.service.get(f"/v1/sweeps/{sweep}")["result"]["winner"]
    expect(page.get_by_text(f"Winner, trial {winner['number']}")).to_be_visible()


def test_button_stays_disabled_until_the_next_page_is_here(
    empty: Service, open_page: OpenPage
) -> None:
    page = open_page(empty.url)
    page.route("**/v1/sweeps", lambda route: route.fulfill(json={"id": "created"}))
    # The answer without content leaves the browser on the page, as one that is on its way does.
    page.route("**/sweeps/created", lambda route: route.fulfill(status=204))
    page.goto("/sweeps/new")
    button = page.get_by_role("button", name="Start sweep")
    with page.expect_response("**/sweeps/created"):
        button.click()
    expect(button).to_be_disabled()


def test_outdated_preview_does_not_enable_the_button(empty: Service, open_page: OpenPage) -> None:
    page = open_page(empty.url)
    page.goto("/sweeps/new")
    pending: list[Route] = []
    page.route("**/sweeps/new?*", lambda route: pending.append(route))
    with page.expect_request("**/sweeps/new?*"):
        page.locator("[name=name]").fill("first")
    with page.expect_request("**/sweeps/new?*"):
        page.locator("[name=name]").fill("second")
        pending[0].continue_()
    expect(page.get_by_role("button", name="Start sweep")).to_be_disabled()
