"""One job: watched while it runs, left and found again, stopped, and read when it has ended."""

import re
import tarfile
from functools import partial
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.complaints import Complaints
from tests.browser.curves import drawn, told, wait_for
from tests.browser.scene import BEST, END, FAILED, HELD, MODEL, Scene
from tests.browser.stays import stays


def more_than(page: Page, points: int) -> bool:
    return len(drawn(page)) > points


def test_points_arrive_without_a_reload_until_the_end(page: Page, scene: Scene) -> None:
    job_id = scene.submit_slow("watched live")
    page.goto(f"/jobs/{job_id}")
    with stays(page):
        for points in (0, 20, 100):
            wait_for(page, partial(more_than, page, points), f"more than {points} points")
            assert scene.service.get(f"/v1/jobs/{job_id}")["state"] == "running"
        status = page.locator("#status")
        expect(status).to_contain_text(re.compile(r"running.*step \d", re.DOTALL))
        expect(status).to_contain_text("succeeded", timeout=END)
        expect(page.locator("#log")).to_contain_text("Succeeded.")
        wait_for(page, lambda: drawn(page) == told(scene.service, job_id), "the last points")


def test_who_closes_the_page_in_mid_run_and_comes_back_misses_nothing(
    page: Page, scene: Scene
) -> None:
    job_id = scene.submit_slow("left alone for a while")
    page.goto(f"/jobs/{job_id}")
    wait_for(page, partial(more_than, page, 20), "some points")
    seen = len(drawn(page))
    page.close()
    service = scene.service
    service.wait("points that nobody saw", lambda: len(told(service, job_id)) > seen + 50)

    again = page.context.new_page()
    before = told(service, job_id)
    again.goto(f"/jobs/{job_id}")
    wait_for(again, lambda: before <= drawn(again), "what was missed")
    assert drawn(again) <= told(service, job_id)
    assert service.get(f"/v1/jobs/{job_id}")["state"] == "running"
    with stays(again):
        wait_for(again, lambda: len(drawn(again)) > len(before) + 20, "what comes after it")
        expect(again.get_by_role("status")).to_contain_text("succeeded", timeout=END)
        wait_for(again, lambda: drawn(again) == told(service, job_id), "the last points")


def test_a_job_is_stopped_only_by_who_says_yes(page: Page, scene: Scene) -> None:
    job_id = scene.submit_slow("stopped half way")
    page.goto(f"/jobs/{job_id}")
    wait_for(page, partial(more_than, page, 0), "the first point")
    with stays(page):
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("dialog")).to_contain_text("Stop this job?")
        page.get_by_role("button", name="No, leave it").click()
        assert scene.service.get(f"/v1/jobs/{job_id}")["cancel_requested_at"] is None

        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("status")).to_contain_text("cancelled")
        expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    assert scene.service.get(f"/v1/jobs/{job_id}")["state"] == "cancelled"


def test_a_job_that_stands_still_is_shown_where_it_stands(page: Page, scene: Scene) -> None:
    job_id = scene.jobs[HELD]
    points = told(scene.service, job_id)
    page.goto(f"/jobs/{job_id}")
    wait_for(page, lambda: drawn(page) == points, "all points")
    job = scene.service.get(f"/v1/jobs/{job_id}")
    expect(page.locator("#status")).to_contain_text(f"step {job['step']} of {job['total_steps']}")
    loss = page.get_by_role("img", name=re.compile("^training from .* at step 1 to .*"))
    expect(loss.first).to_be_visible()


def test_a_job_that_failed_says_why(page: Page, scene: Scene) -> None:
    job = scene.service.get(f"/v1/jobs/{scene.jobs[FAILED]}")
    page.goto(f"/jobs/{job['id']}")
    failure = page.locator("#error")
    expect(failure).to_contain_text(job["error"]["message"])
    expect(failure).to_contain_text("non_finite")
    expect(failure.get_by_role("link")).to_have_attribute("href", f"/jobs/new?from={job['id']}")


def test_a_job_that_has_ended_shows_what_came_out(page: Page, scene: Scene, tmp_path: Path) -> None:
    job = scene.service.get(f"/v1/jobs/{scene.jobs[BEST]}")
    summary = job["summary"]
    page.goto(f"/jobs/{job['id']}")
    figures = page.locator("#figures")
    for who in (summary, summary["linear"]):
        expect(figures).to_contain_text(f"{who['test']['accuracy'] * 100:.1f} %")
    cells = page.locator("#confusion td.number").all_inner_texts()
    texts = sum(int(each) for each in cells if each.isdecimal())
    assert texts == summary["examples"]["test"]
    wrong = page.locator("#mistakes li")
    assert 0 < wrong.count() <= round((1 - summary["test"]["accuracy"]) * texts)
    assert wrong.count() <= 3
    expect(wrong.first).to_contain_text(re.compile(r"It says \w+ with [\d.]+ %; the label is \w+"))
    expect(page.get_by_role("link", name=f"{MODEL}:1")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download all").click()
    download.value.save_as(tmp_path / "model.tar")
    with tarfile.open(tmp_path / "model.tar") as archive:
        assert any(name.endswith("manifest.json") for name in archive.getnames())


def test_its_settings_and_where_it_comes_from_are_there_to_read(page: Page, scene: Scene) -> None:
    page.goto(f"/jobs/{scene.jobs[BEST]}")
    page.get_by_text("Settings and origin").click()
    expect(page.locator("#origin").get_by_role("link", name="reviews")).to_be_visible()
    page.get_by_text("All settings").click()
    row = page.get_by_role("row").filter(has_text="method.r")
    expect(row).to_contain_text("8")


def test_curves_that_are_folded_are_drawn_once_they_are_opened(page: Page, scene: Scene) -> None:
    page.goto(f"/jobs/{scene.jobs[BEST]}")
    expect(page.locator("#loss .main-svg").first).to_be_visible()
    speed = page.locator("#speed .main-svg")
    expect(speed).to_have_count(0)
    page.get_by_text("More curves").click()
    expect(speed.first).to_be_visible()
    width = page.locator("#speed").bounding_box()
    picture = speed.first.bounding_box()
    assert width is not None
    assert picture is not None
    assert abs(width["width"] - picture["width"]) < 2


def test_around_a_lone_point_accuracies_stay_between_0_and_100_percent(
    page: Page, scene: Scene
) -> None:
    candidates = [{"method": {"type": "lora"}, "folds": 1}]
    job = scene.submit(
        "lone", method={"type": "auto", "candidates": candidates}, optim={"epochs": 1}
    )
    scene.service.succeeded(job)
    page.goto(f"/jobs/{job}")
    expect(page.locator("#accuracy .main-svg").first).to_be_visible()
    assert len([point for point in drawn(page) if point[1] == "accuracy"]) == 1
    low, high = page.evaluate("document.getElementById('accuracy')._fullLayout.yaxis.range")
    assert -0.1 < low < high < 1.1


def test_tags_and_notes_are_edited_in_place(
    page: Page, scene: Scene, complaints: Complaints
) -> None:
    complaints.expect(422)
    job_id = scene.jobs[FAILED]
    page.goto(f"/jobs/{job_id}")
    page.get_by_text("Add tags or notes").click()
    tags, save = page.get_by_label("Tags"), page.get_by_role("button", name="Save")
    tags.fill('too fast, a"b')
    save.click()
    expect(page.locator("#describe-error")).to_contain_text('a"b must not contain')
    expect(tags).to_be_focused()
    tags.fill("Too  fast , lesson")
    page.get_by_label("Notes").fill("The rate was a typo.\nDo not repeat.")
    save.click()
    expect(page.locator("#tagged .chip")).to_have_text(["lesson", "too fast"])
    expect(page.locator("#tagged .notes")).to_contain_text("Do not repeat.")
    job = scene.service.get(f"/v1/jobs/{job_id}")
    assert job["notes"] == "The rate was a typo.\nDo not repeat."
    page.locator("#tagged").get_by_role("link", name="too fast").click()
    expect(page.locator("#jobs tbody tr")).to_have_count(1)
    expect(page.get_by_label("Tag")).to_have_value("too fast")
    page.get_by_label("Tag").fill("nothing")
    expect(page.locator("#jobs")).to_contain_text("No job is like that")


def test_a_part_of_a_run_has_a_page_too(page: Page, scene: Scene) -> None:
    """What halving leaves of most cells: no model, no test figures, no linear rival."""
    job_id = scene.submit("half of it", method={"type": "lora"}, trial={"share": 0.5})
    page.goto(f"/jobs/{job_id}")
    status = page.locator("#status")
    expect(status).to_contain_text("succeeded", timeout=END)
    summary = scene.service.get(f"/v1/jobs/{job_id}")["summary"]
    accuracy = f"{summary['validation']['accuracy'] * 100:.1f} %"
    page.reload()
    expect(page.locator("#figures")).to_contain_text(accuracy)
