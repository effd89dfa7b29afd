"""The page of a job: live updates, cancellation, errors and results."""

import re
import tarfile
from functools import partial
from pathlib import Path

from playwright.sync_api import Page, expect

from app.queue.transitions import PermanentFailure
from app.resources import Resources
from tests.app.jobs.fake_worker import FakeWorker
from tests.browser.browser_errors import BrowserErrors
from tests.browser.chart_points import points_from_api, points_on_page, wait_for
from tests.browser.conftest import OpenPage
from tests.browser.no_reload import no_reload
from tests.browser.seeded_service import BEST, FAILED, JOB_TIMEOUT, MODEL, RUNNING, SeededService
from tests.browser.service import Service


def has_more_points(page: Page, points: int) -> bool:
    return len(points_on_page(page)) > points


def test_points_arrive_without_a_reload(page: Page, seeded: SeededService) -> None:
    job_id = seeded.submit_slow("watched live")
    page.goto(f"/jobs/{job_id}")
    with no_reload(page):
        for points in (0, 20, 100):
            wait_for(page, partial(has_more_points, page, points), f"more than {points} points")
            assert seeded.service.get(f"/v1/jobs/{job_id}")["state"] == "running"
        status = page.locator("#status")
        expect(status).to_contain_text(re.compile(r"running.*step \d", re.DOTALL))
        expect(status).to_contain_text("succeeded", timeout=JOB_TIMEOUT)
        expect(page.locator("#log")).to_contain_text("Succeeded.")
        wait_for(
            page,
            lambda: points_on_page(page) == points_from_api(seeded.service, job_id),
            "the last points",
        )


def test_reopened_page_has_all_points(page: Page, seeded: SeededService) -> None:
    job_id = seeded.submit_slow("left alone for a while")
    page.goto(f"/jobs/{job_id}")
    wait_for(page, partial(has_more_points, page, 20), "some points")
    seen = len(points_on_page(page))
    page.close()
    service = seeded.service
    service.wait("unseen points", lambda: len(points_from_api(service, job_id)) > seen + 50)

    again = page.context.new_page()
    before = points_from_api(service, job_id)
    again.goto(f"/jobs/{job_id}")
    wait_for(again, lambda: before <= points_on_page(again), "what was missed")
    assert points_on_page(again) <= points_from_api(service, job_id)
    assert service.get(f"/v1/jobs/{job_id}")["state"] == "running"
    with no_reload(again):
        wait_for(
            again, lambda: len(points_on_page(again)) > len(before) + 20, "what comes after it"
        )
        expect(again.get_by_role("status")).to_contain_text("succeeded", timeout=JOB_TIMEOUT)
        wait_for(
            again,
            lambda: points_on_page(again) == points_from_api(service, job_id),
            "the last points",
        )


def test_hidden_page_keeps_no_connection(page: Page, seeded: SeededService) -> None:
    streams = []
    page.on("request", lambda sent: streams.append(sent.url) if "/stream" in sent.url else None)
    page.add_init_script(
        "window.isHidden = true;"
        "Object.defineProperty(document, 'hidden', { get: () => window.isHidden })"
    )
    body = {"method": {"type": "lora"}, "data": {"source": "reviews"}}
    job = seeded.service.post("/v1/jobs", body)
    page.goto(f"/jobs/{job['id']}")
    page.wait_for_load_state("networkidle")
    assert streams == []
    with page.expect_request(lambda sent: "/stream" in sent.url):
        page.evaluate(
            "window.isHidden = false; document.dispatchEvent(new Event('visibilitychange'))"
        )
    seeded.service.post(f"/v1/jobs/{job['id']}/cancel", {})


def test_cancel_needs_confirmation(page: Page, seeded: SeededService) -> None:
    job_id = seeded.submit_slow("cancelled half way")
    page.goto(f"/jobs/{job_id}")
    wait_for(page, partial(has_more_points, page, 0), "the first point")
    expect(page.locator("#status")).to_contain_text("running")
    with no_reload(page):
        page.get_by_role("button", name="Cancel job").click()
        expect(page.get_by_role("dialog")).to_contain_text("Cancel this running job?")
        page.get_by_role("button", name="Go back").click()
        assert seeded.service.get(f"/v1/jobs/{job_id}")["cancel_requested_at"] is None

        page.get_by_role("button", name="Cancel job").click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel job").click()
        expect(page.get_by_role("status")).to_contain_text("cancelled")
        expect(page.get_by_role("button", name="Cancel job")).to_have_count(0)
    assert seeded.service.get(f"/v1/jobs/{job_id}")["state"] == "cancelled"


def test_running_job_is_paused_and_resumed(page: Page, seeded: SeededService) -> None:
    job_id = seeded.submit_slow("paused half way")
    page.goto(f"/jobs/{job_id}")
    status = page.get_by_role("status")
    expect(status).to_contain_text("running", timeout=JOB_TIMEOUT)
    with no_reload(page):
        page.get_by_role("button", name="Pause", exact=True).click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("Pause this running job?")
        dialog.get_by_role("button", name="Pause", exact=True).click()
        expect(status).to_contain_text("paused", timeout=JOB_TIMEOUT)
        assert seeded.service.get(f"/v1/jobs/{job_id}")["paused"]
        page.get_by_role("button", name="Resume", exact=True).click()
        expect(status).to_contain_text("succeeded", timeout=JOB_TIMEOUT)
    assert seeded.service.get(f"/v1/jobs/{job_id}")["attempt"] == 2


def test_job_that_makes_no_progress_shows_its_step(page: Page, seeded: SeededService) -> None:
    job_id = seeded.jobs[RUNNING]
    points = points_from_api(seeded.service, job_id)
    page.goto(f"/jobs/{job_id}")
    wait_for(page, lambda: points_on_page(page) == points, "all points")
    job = seeded.service.get(f"/v1/jobs/{job_id}")
    expect(page.locator("#status")).to_contain_text(f"step {job['step']} of {job['total_steps']}")
    loss = page.get_by_role("img", name=re.compile("^training from .* at step 1 to .*"))
    expect(loss.first).to_be_visible()


def test_failed_job_shows_its_error(page: Page, seeded: SeededService) -> None:
    job = seeded.service.get(f"/v1/jobs/{seeded.jobs[FAILED]}")
    page.goto(f"/jobs/{job['id']}")
    failure = page.locator("#error")
    expect(failure).to_contain_text(job["error"]["message"])
    expect(failure).to_contain_text("non_finite")
    expect(failure.get_by_role("link")).to_have_attribute("href", f"/jobs/new?from={job['id']}")


def test_finished_job_shows_its_results(page: Page, seeded: SeededService, tmp_path: Path) -> None:
    job = seeded.service.get(f"/v1/jobs/{seeded.jobs[BEST]}")
    summary = job["summary"]
    page.goto(f"/jobs/{job['id']}")
    metrics = page.locator("#metrics")
    for result in (summary, summary["linear"]):
        expect(metrics).to_contain_text(f"{result['test']['accuracy'] * 100:.1f}%")
    cells = page.locator("#confusion td.number").all_inner_texts()
    texts = sum(int(each) for each in cells if each.isdecimal())
    assert texts == summary["examples"]["test"]
    wrong = page.locator("#misclassified li")
    assert 0 < wrong.count() <= round((1 - summary["test"]["accuracy"]) * texts)
    assert wrong.count() <= 3
    expect(wrong.first).to_contain_text(re.compile(r"Predicted \w+ with [\d.]+%; true label \w+"))
    expect(page.get_by_role("link", name=f"{MODEL}:1")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download all").click()
    download.value.save_as(tmp_path / "model.tar")
    with tarfile.open(tmp_path / "model.tar") as archive:
        assert any(name.endswith("manifest.json") for name in archive.getnames())


def test_settings_and_provenance(page: Page, seeded: SeededService) -> None:
    page.goto(f"/jobs/{seeded.jobs[BEST]}")
    page.get_by_text("Settings and provenance").click()
    expect(page.locator("#provenance").get_by_role("link", name="reviews")).to_be_visible()
    page.get_by_text("All settings").click()
    row = page.get_by_role("row").filter(has_text="method.r")
    expect(row).to_contain_text("8")


def test_folded_curves_are_drawn_when_opened(page: Page, seeded: SeededService) -> None:
    page.goto(f"/jobs/{seeded.jobs[BEST]}")
    expect(page.locator("#loss .main-svg").first).to_be_visible()
    gradient_norm = page.locator("#gradient-norm .main-svg")
    expect(gradient_norm).to_have_count(0)
    page.get_by_text("More curves").click()
    expect(gradient_norm.first).to_be_visible()
    width = page.locator("#gradient-norm").bounding_box()
    picture = gradient_norm.first.bounding_box()
    assert width is not None
    assert picture is not None
    assert abs(width["width"] - picture["width"]) < 2


def test_accuracy_axis_stays_within_0_and_100_percent(page: Page, seeded: SeededService) -> None:
    candidates = [{"method": {"type": "lora"}, "folds": 1}]
    job = seeded.submit(
        "lone", method={"type": "auto", "candidates": candidates}, optim={"epochs": 1}
    )
    seeded.service.wait_for_success(job)
    page.goto(f"/jobs/{job}")
    expect(page.locator("#accuracy .main-svg").first).to_be_visible()
    assert len([point for point in points_on_page(page) if point[1] == "accuracy"]) == 1
    low, high = page.evaluate("document.getElementById('accuracy')._fullLayout.yaxis.range")
    assert -0.1 < low < high < 1.1


def test_edit_tags_and_notes(
    page: Page, seeded: SeededService, browser_errors: BrowserErrors
) -> None:
    browser_errors.expect(422)
    job_id = seeded.jobs[FAILED]
    page.goto(f"/jobs/{job_id}")
    page.get_by_text("Add tags or notes").click()
    tags, save = page.get_by_label("Tags"), page.get_by_role("button", name="Save")
    tags.fill('too fast, a"b')
    save.click()
    expect(page.locator("#metadata-error")).to_contain_text('a"b must not contain')
    expect(tags).to_be_focused()
    tags.fill("Too  fast , lesson")
    page.get_by_label("Notes").fill("The rate was a typo.\nDo not repeat.")
    save.click()
    expect(page.locator("#tags-and-notes .chip")).to_have_text(["lesson", "too fast"])
    expect(page.locator("#tags-and-notes .notes")).to_contain_text("Do not repeat.")
    job = seeded.service.get(f"/v1/jobs/{job_id}")
    assert job["notes"] == "The rate was a typo.\nDo not repeat."
    page.locator("#tags-and-notes").get_by_role("link", name="too fast").click()
    expect(page.locator("#jobs tbody tr")).to_have_count(1)
    expect(page.get_by_label("Tag")).to_have_value("too fast")
    page.get_by_label("Tag").fill("nothing")
    expect(page.locator("#jobs")).to_contain_text("No jobs match these filters")


def test_only_the_changed_one_of_tags_and_notes_is_saved(
    idle: Service, open_page: OpenPage
) -> None:
    job_id = idle.submit(method={"type": "baseline"})
    page = open_page(idle.url)
    page.goto(f"/jobs/{job_id}")
    path = f"/v1/jobs/{job_id}"
    elsewhere = {"tags": ["nightly"], "notes": "The rate was a typo."}
    for field, value in (("tags", ["german"]), ("notes", "Do not repeat.")):
        page.locator("#edit-metadata summary").click()
        idle.client.request_json("PATCH", path, json=elsewhere)
        page.locator(f"#{field}").fill("".join(value))
        with page.expect_navigation():
            page.get_by_role("button", name="Save").click()
        saved = idle.get(path)
        assert {name: saved[name] for name in elsewhere} == {**elsewhere, field: value}
    idle.client.request_json("POST", f"{path}/cancel")  # another test claims the oldest job


def test_partial_run(page: Page, seeded: SeededService) -> None:
    """Like most trials of successive halving: no model, no test metrics, no linear model."""
    job_id = seeded.submit("half of it", method={"type": "lora"}, trial={"budget": 0.5})
    page.goto(f"/jobs/{job_id}")
    status = page.locator("#status")
    expect(status).to_contain_text("succeeded", timeout=JOB_TIMEOUT)
    summary = seeded.service.get(f"/v1/jobs/{job_id}")["summary"]
    accuracy = f"{summary['validation']['accuracy'] * 100:.1f}%"
    page.reload()
    expect(page.locator("#metrics")).to_contain_text(accuracy)


def test_curves_load_again_after_an_outage_and_go_if_there_are_none(
    idle: Service, resources: Resources, open_page: OpenPage, browser_errors: BrowserErrors
) -> None:
    job_id = idle.submit(method={"type": "baseline"})
    worker = FakeWorker(resources.database)
    lease = worker.claim().lease
    page = open_page(idle.url)
    browser_errors.expect(503)
    problem = {"detail": "The database is away."}
    page.route("**/curves?*", lambda route: route.fulfill(status=503, json=problem), times=1)
    with page.expect_request("**/stream?*"):
        page.goto(f"/jobs/{job_id}")
    expect(page.locator("#alert")).to_be_hidden()
    expect(page.locator("#curves")).to_be_visible()
    worker.finish(lease, PermanentFailure("one_class", "Only one label."))
    expect(page.locator("#curves")).to_be_hidden()
