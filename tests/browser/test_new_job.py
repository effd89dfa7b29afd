"""The form of a new job: what it will take, faults at their fields, the same without a browser."""

import json
import re
import shlex
import subprocess
import sys

from playwright.sync_api import Page, expect

from tests.browser.complaints import Complaints
from tests.browser.scene import SMALL, Scene


def fill(page: Page, **fields: str) -> None:
    """By their labels, with _ for a space."""
    for label, text in fields.items():
        page.get_by_label(label.replace("_", " "), exact=True).fill(text)


def test_it_tells_what_a_job_takes_and_keeps_up_with_what_is_chosen(
    page: Page, scene: Scene
) -> None:
    page.goto("/jobs/new?data=reviews")
    plan = page.get_by_label("What it will take")
    for method, rank in (("lora", 8), ("lora", 4), ("full", None)):
        page.get_by_role("radio", name=method).check()
        if rank:
            fill(page, Rank_r=str(rank))
        body = {"method": {"type": method, "r": rank} if rank else {"type": method}}
        told = scene.service.post("/v1/jobs?dry_run=true", {"data": {"source": "reviews"}, **body})
        count = f"{told['parameters']['trainable']:,}"
        expect(plan).to_contain_text(f"{count} of")
        expect(plan).to_contain_text(re.compile(r"about \d+ (seconds|minutes)"))


def test_a_linear_model_has_fields_of_its_own_and_starts(page: Page, scene: Scene) -> None:
    page.goto("/jobs/new?data=reviews")
    fill(page, Start_from="minilm-l6")
    page.get_by_role("radio", name="linear").check()
    for label in ("Start from", "Epochs", "Longest text", "Rank r"):
        expect(page.get_by_label(label, exact=True)).to_be_hidden()
    fill(page, C="8", Words_in_a_term="1,3", Name="words by the form")
    command = page.locator("#command")
    expect(command).to_contain_text(
        re.compile(r"--method linear \\\s+--c 8 \\\s+--ngram-range 1,3")
    )
    expect(page.get_by_label("What it will take")).to_contain_text("parameters")
    page.get_by_role("button", name="Start the job").click()
    expect(page).to_have_url(re.compile(r"/jobs/[0-9a-f-]{36}$"))
    expect(page.get_by_role("heading", name="words by the form")).to_be_visible()
    expect(page.locator("#curves")).to_be_hidden()
    job = scene.service.get(f"/v1/jobs/{page.url.rpartition('/')[2]}")
    assert (job["method"], job["base"]) == ("linear", None)
    method = job["spec"]["method"]
    assert (method["C"], method["ngram_range"], method["min_df"]) == (8.0, [1, 3], None)
    scene.service.post(f"/v1/jobs/{job['id']}/cancel", {})


def test_a_fault_stands_at_its_field_and_the_job_starts_once_it_is_mended(
    page: Page, scene: Scene, complaints: Complaints
) -> None:
    complaints.expect(422)
    page.goto("/jobs/new?data=reviews")
    expect(page.get_by_role("radio", name="auto")).to_be_checked()
    page.get_by_role("radio", name="lora").check()
    fill(page, Rank_r="0", Name="by the form", Epochs="1")
    rank = page.get_by_label("Rank r")
    expect(rank).to_have_attribute("aria-invalid", "true")
    expect(rank).to_have_accessible_description(re.compile("at least 1"))
    page.get_by_role("button", name="Start the job").click()
    expect(rank).to_be_focused()
    assert page.url.endswith("/jobs/new?data=reviews")

    rank.fill("3")
    expect(rank).not_to_have_attribute("aria-invalid", "true")
    page.get_by_role("button", name="Start the job").click()
    expect(page).to_have_url(re.compile(r"/jobs/[0-9a-f-]{36}$"))
    expect(page.get_by_role("heading", name="by the form")).to_be_visible()
    job = scene.service.get(f"/v1/jobs/{page.url.rpartition('/')[2]}")
    assert (job["name"], job["spec"]["method"]["r"]) == ("by the form", 3)
    assert (job["spec"]["optim"]["epochs"], job["method"]) == (1, "lora")
    scene.service.post(f"/v1/jobs/{job['id']}/cancel", {})


def test_what_it_shows_as_calls_does_what_the_button_does(page: Page, scene: Scene) -> None:
    page.goto("/jobs/new?data=reviews")
    page.get_by_role("radio", name="lora").check()
    name = 'it\'s "quoted" $HOME `x`'
    fill(page, Name=name, Rank_r="2", Train_on="0.5", Learning_rate="3e-4")
    page.get_by_role("checkbox", name="mlp").uncheck()
    expect(page.locator("#curl")).to_contain_text("0.0003")
    curl = shlex.split((page.locator("#curl").text_content() or "").replace("\\\n", " "))
    body = json.loads(curl[curl.index("-d") + 1])
    assert body["method"] == {
        "type": "lora",
        "r": 2,
        "targets": ["query", "key", "value", "projection"],
    }
    assert (body["name"], body["data"]["train_size"]) == (name, 0.5)

    command = shlex.split((page.locator("#command").text_content() or "").replace("\\\n", " "))
    program = [sys.executable, "-m", "app.cli.main"]
    asked = subprocess.run(
        [*program, *command[1:], "--dry-run", "--json"], capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, asked.stderr
    sent = scene.service.post("/v1/jobs?dry_run=true", body)
    assert json.loads(asked.stdout)["spec"] == sent["spec"]


def test_a_job_is_run_again_with_changes(page: Page, scene: Scene) -> None:
    page.goto(f"/jobs/{scene.jobs[SMALL]}")
    page.get_by_role("link", name="Run again").click()
    expect(page.get_by_label("Rank r")).to_have_value("2")
    expect(page.get_by_role("checkbox", name="query")).to_be_checked()
    expect(page.get_by_role("checkbox", name="mlp")).not_to_be_checked()
    fill(page, Rank_r="1", Name="once more")
    page.get_by_role("button", name="Start the job").click()
    expect(page.get_by_role("heading", name="once more")).to_be_visible()
    again = scene.service.get(f"/v1/jobs/{page.url.rpartition('/')[2]}")
    before = scene.service.get(f"/v1/jobs/{scene.jobs[SMALL]}")
    assert again["spec"]["method"] == {**before["spec"]["method"], "r": 1}
    assert again["spec"]["data"] == before["spec"]["data"]
    scene.service.post(f"/v1/jobs/{again['id']}/cancel", {})


def test_data_given_part_by_part_stay_so(page: Page, scene: Scene, complaints: Complaints) -> None:
    complaints.expect(422)
    said = {"method": {"type": "lora"}, "data": {"source": {"train": "imdb", "test": "imdb"}}}
    job = scene.service.post("/v1/jobs", said)
    scene.service.post(f"/v1/jobs/{job['id']}/cancel", {})
    page.goto(f"/jobs/new?from={job['id']}")
    train, test = (page.get_by_label(f"Texts and labels, {part}") for part in ("train", "test"))
    test.fill("rotten-tomatoes")
    expect(page.locator("#command")).to_contain_text("--data train=imdb")
    expect(page.locator("#command")).to_contain_text("--data test=rotten-tomatoes")
    expect(page.locator("#curl")).to_contain_text('"train":"imdb","test":"rotten-tomatoes"')
    train.fill("")
    test.fill("")
    expect(page.locator("#faults")).to_contain_text("train")
    page.get_by_role("button", name="Start the job").click()
    expect(page.locator("#faults")).to_contain_text("train")
    assert "/jobs/new?" in page.url
