"""The list of jobs: found, narrowed, and kept up to date without a reload."""

import re

from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import Visit
from tests.browser.scene import BEST, CANCELLED, END, FAILED, HELD, LAST, SMALL, Scene
from tests.browser.service import Service
from tests.browser.stays import refreshed, stays


def row(page: Page, name: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def test_each_job_stands_there_with_its_state_and_figures(page: Page, scene: Scene) -> None:
    page.goto("/")
    told = {
        BEST: ("succeeded", "lora r 8", "%", "reviews"),
        LAST: ("succeeded", "baseline", "%"),
        FAILED: ("failed", "full"),
        CANCELLED: ("cancelled", "full"),
        HELD: ("running", "lora r 16"),
    }
    for name, words in told.items():
        for word in words:
            expect(row(page, name)).to_contain_text(word)
    expect(row(page, BEST).get_by_role("img", name="loss")).to_be_visible()
    jobs = scene.service.get("/v1/jobs", limit=100, state="succeeded")["data"]
    alone = sum(job["sweep_id"] is None for job in jobs)
    expect(page.get_by_text(f"{alone} succeeded")).to_be_visible()
    share = row(page, HELD).get_by_role("progressbar").get_attribute("value")
    job = scene.service.get(f"/v1/jobs/{scene.jobs[HELD]}")
    assert float(share or 0) == round(job["progress"], 3)


def test_filters_and_search_hold_at_once_and_can_be_sent_to_others(page: Page) -> None:
    page.goto("/")
    with stays(page):
        page.get_by_label("Search").press_sequentially("QUERY and")
        expect(row(page, BEST)).to_have_count(0)
        expect(row(page, SMALL)).to_be_visible()
        page.get_by_label("Search").fill("")
        page.get_by_label("State").select_option("failed")
        expect(row(page, SMALL)).to_have_count(0)
        expect(row(page, FAILED)).to_be_visible()
        page.get_by_label("Method").select_option("baseline")
        expect(page.get_by_text("No job is like that")).to_be_visible()
        page.get_by_label("Method").select_option("full")
        expect(row(page, FAILED)).to_be_visible()
    page.goto(page.url)
    expect(row(page, FAILED)).to_be_visible()
    expect(row(page, CANCELLED)).to_have_count(0)
    expect(page.get_by_label("State")).to_have_value("failed")


def test_a_filter_holds_that_was_typed_before_the_script_was_there(page: Page) -> None:
    held: list[Route] = []
    page.route("**/filters.js*", lambda route: held.append(route))
    page.goto("/?tag=x&cells=true", wait_until="commit")
    page.get_by_label("Tag").fill("")
    page.get_by_label("State").select_option("failed")
    [script] = held
    script.continue_()
    expect(row(page, FAILED)).to_be_visible()
    expect(page).to_have_url(re.compile(r"/\?state=failed&cells=true$"))


def test_a_new_job_comes_in_and_goes_on_without_a_reload(page: Page, scene: Scene) -> None:
    page.goto("/")
    name = "sent meanwhile"
    with stays(page):
        job_id = scene.submit(name, method={"type": "baseline"})
        expect(row(page, name)).to_contain_text(re.compile("queued|running"))
        expect(row(page, name)).to_contain_text("succeeded", timeout=END)
    figure = scene.service.get(f"/v1/jobs/{job_id}")["summary"]["test"]["accuracy"]
    expect(row(page, name)).to_contain_text(f"{figure * 100:.1f} %")


def test_what_is_typed_ticked_and_focused_outlives_news(page: Page, scene: Scene) -> None:
    page.goto("/")
    tick = page.get_by_role("checkbox", name=f"Compare {BEST}")
    tick.check()
    link = page.get_by_role("link", name=SMALL, exact=True)
    link.focus()
    job_id = scene.submit("not needed", method={"type": "full"})
    scene.service.post(f"/v1/jobs/{job_id}/cancel", {})
    expect(row(page, "not needed")).to_be_visible()
    refreshed(page)
    expect(tick).to_be_checked()
    expect(link).to_be_focused()


def test_the_first_visit_says_what_to_do_and_one_button_starts_the_sample(
    empty: Service, visit: Visit
) -> None:
    page = visit(empty.url)
    page.goto("/")
    expect(page.get_by_role("heading", name="Nothing here yet")).to_be_visible()
    page.get_by_role("button", name="Start the sample job").click()
    expect(page).to_have_url(re.compile(r"/jobs/[0-9a-f-]{36}$"))
    expect(page.get_by_role("heading", name="sample")).to_be_visible()
    [job] = empty.get("/v1/jobs")["data"]
    assert (job["state"], job["register_as"]) == ("queued", "sentiment")
    assert page.url.endswith(job["id"])
