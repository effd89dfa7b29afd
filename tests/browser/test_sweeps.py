"""Sweeps: the grid fills up by itself, and in the end it says which cell to take, and why."""

from playwright.sync_api import Page, expect

from tests.browser.scene import END, Scene
from tests.browser.stays import stays


def test_the_grid_fills_up_without_a_reload_and_a_winner_stands_there(
    page: Page, scene: Scene
) -> None:
    sweep = scene.start_sweep("filling up", optim={"epochs": 3, "batch_size": 16})
    page.goto(f"/sweeps/{sweep}")
    scores = page.locator("#grid td a").filter(has_text="%")
    with stays(page):
        expect(page.get_by_text("0 of 4 cells have ended")).to_be_visible()
        for number in (1, 4):
            expect(scores.nth(number - 1)).to_be_visible(timeout=END)
        expect(page.get_by_text("4 of 4 cells have ended")).to_be_visible()
        expect(page.get_by_role("heading", name="What came out", exact=True)).to_be_visible()
    told = scene.service.get(f"/v1/sweeps/{sweep}")["verdict"]["winner"]
    expect(page.get_by_text(f"The winner, cell {told['number']}")).to_be_visible()
