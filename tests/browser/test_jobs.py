"""The list of jobs: rows, filters and live updates."""

import re

from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import OpenPage
from tests.browser.no_reload import no_reload, refresh
from tests.browser.seeded_service import (
    BEST,
    CANCELLED,
    FAILED,
    JOB_TIMEOUT,
    LAST,
    RUNNING,
    SMALL,
    SeededService,
)
from tests.browser.service import Service


def row(page: Page, name: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def test_rows_show_state_and_metrics(page: Page, seeded: SeededService) -> None:
    page.goto("/")
    expected = {
        BEST: ("succeeded", "lora r 8", "%", "reviews"),
        LAST: ("succeeded", "baseline", "%"),
        FAILED: ("failed", "full"),
        CANCELLED: ("cancelled", "full"),
        RUNNING: ("running", "lora r 16"),
    }
    for name, words in expected.items():
        for word in words:
            expect(row(page, name)).to_contain_text(word)
    expect(row(page, BEST).get_by_role("img", name="loss")).to_be_visible()
    jobs = seeded.service.get("/v1/jobs", limit=100, state="succeeded")["data"]
    alone = sum(job["sweep_id"] is None for job in jobs)
    expect(page.get_by_text(f"{alone} succeeded")).to_be_visible()
    share = row(page, RUNNING).get_by_role("progressbar").get_attribute("value")
    job = seeded.service.get(f"/v1/jobs/{seeded.jobs[RUNNING]}")
    assert float(share or 0) == round(job["progress"], 3)


def test_filters_apply_at_once_and_are_in_the_url(page: Page) -> None:
    page.goto("/")
    with no_reload(page):
        page.get_by_label("Search").press_sequentially("QUERY and")
        expect(row(page, BEST)).to_have_count(0)
        expect(row(page, SMALL)).to_be_visible()
        page.get_by_label("Search").fill("")
        page.get_by_label("State").select_option("failed")
        expect(row(page, SMALL)).to_have_count(0)
        expect(row(page, FAILED)).to_be_visible()
        page.get_by_label("Method").select_option("baseline")
        expect(page.get_by_text("No jobs match these filters")).to_be_visible()
        page.get_by_label("Method").select_option("full")
        expect(row(page, FAILED)).to_be_visible()
    page.goto(page.url)
    expect(row(page, FAILED)).to_be_visible()
    expect(row(page, CANCELLED)).to_have_count(0)
    expect(page.get_by_label("State")).to_have_value("failed")


def test_filters_changed_before_the_script_has_loaded_apply(page: Page) -> None:
    pending: list[Route] = []
    page.route("**/filters.js*", lambda route: pending.append(route))
    page.goto("/?tag=x&include_trials=true", wait_until="commit")
    page.get_by_label("Tag").fill("")
    page.get_by_label("State").select_option("failed")
    [script] = pending
    script.continue_()
    expect(row(page, FAILED)).to_be_visible()
    expect(page).to_have_url(re.compile(r"/\?state=failed&include_trials=true$"))


def test_new_job_appears_without_a_reload(page: Page, seeded: SeededService) -> None:
    page.goto("/")
    name = "submitted later"
    with no_reload(page):
        job_id = seeded.submit(name, method={"type": "baseline"})
        expect(row(page, name)).to_contain_text(re.compile("queued|running|succeeded"))
        expect(row(page, name)).to_contain_text("succeeded", timeout=JOB_TIMEOUT)
    accuracy = seeded.service.get(f"/v1/jobs/{job_id}")["summary"]["test"]["accuracy"]
    expect(row(page, name)).to_contain_text(f"{accuracy * 100:.1f}%")


def test_live_updates_keep_selection_and_focus(page: Page, seeded: SeededService) -> None:
    page.goto("/")
    checkbox = page.get_by_role("checkbox", name=f"Compare {BEST}")
    checkbox.check()
    link = page.get_by_role("link", name=SMALL, exact=True)
    link.focus()
    job_id = seeded.submit("not needed", method={"type": "full"})
    seeded.service.post(f"/v1/jobs/{job_id}/cancel", {})
    expect(row(page, "not needed")).to_be_visible()
    refresh(page)
    expect(checkbox).to_be_checked()
    expect(link).to_be_focused()


def test_empty_state_starts_the_sample_job(empty: Service, open_page: OpenPage) -> None:
    page = open_page(empty.url)
    page.goto("/")
    expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()
    page.get_by_role("button", name="Run the sample job").click()
    expect(page).to_have_url(re.compile(r"/jobs/[0-9a-f-]{36}$"))
    expect(page.get_by_role("heading", name="sample")).to_be_visible()
    [job] = empty.get("/v1/jobs")["data"]
    assert (job["state"], job["register_as"]) == ("queued", "sentiment")
    assert page.url.endswith(job["id"])
