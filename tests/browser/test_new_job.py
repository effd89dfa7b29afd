"""The new job form: plan, field errors, and snippets."""

import json
import re
import shlex
import subprocess
import sys
from typing import Any

from playwright.sync_api import Page, Route, expect

from lora_core.results import BaseModelReport
from tests.browser.browser_errors import BrowserErrors
from tests.browser.seeded_service import SMALL, SeededService


def fill(page: Page, **fields: str) -> None:
    """Fill fields by label, with _ for a space."""
    for label, text in fields.items():
        page.get_by_label(label.replace("_", " "), exact=True).fill(text)


def test_plan_follows_the_input(page: Page, seeded: SeededService) -> None:
    page.goto("/jobs/new?data=reviews")
    plan = page.get_by_label("Plan", exact=True)
    for method, rank in (("lora", 8), ("lora", 4), ("full", None)):
        page.get_by_role("radio", name=re.compile(rf"^{method}\b")).check()
        if rank:
            fill(page, Rank_r=str(rank))
        body = {"method": {"type": method, "r": rank} if rank else {"type": method}}
        result = seeded.service.post(
            "/v1/jobs?dry_run=true", {"data": {"source": "reviews"}, **body}
        )
        count = f"{result['parameters']['trainable']:,}"
        expect(plan).to_contain_text(f"{count} of")
        expect(plan).to_contain_text(re.compile(r"about \d+ (seconds|minutes)"))


def test_plan_of_auto_counts_what_is_compared(page: Page, seeded: SeededService) -> None:
    page.goto("/jobs/new?data=reviews")
    plan = page.get_by_label("Plan", exact=True)
    found = seeded.service.post("/v1/jobs?dry_run=true", {"data": {"source": "reviews"}})
    compared = found["cross_validation"]
    expect(plan).to_contain_text(f"{compared['candidates']} candidates, {compared['fits']} fits")
    expect(plan).to_contain_text(re.compile(r"at most about [\d.]+ (seconds|minutes|hours)"))
    page.get_by_role("radio", name=re.compile(r"^lora\b")).check()
    expect(page.locator("#plan-candidates")).to_be_hidden()
    expect(plan).not_to_contain_text("at most")


def test_linear_model_has_its_own_fields(page: Page, seeded: SeededService) -> None:
    page.goto("/jobs/new?data=reviews")
    fill(page, Base_model="minilm-l6")
    page.get_by_role("radio", name=re.compile(r"^linear\b")).check()
    for label in ("Base model", "Epochs", "Maximum length", "Rank r"):
        expect(page.get_by_label(label, exact=True)).to_be_hidden()
    fill(page, C="8", **{"N-gram_range": "1,3"}, Name="linear from the form")
    command = page.locator("#command")
    expect(command).to_contain_text(
        re.compile(r"--method linear \\\s+--c 8 \\\s+--ngram-range 1,3")
    )
    expect(page.get_by_label("Plan", exact=True)).to_contain_text("parameters")
    page.get_by_role("button", name="Start job").click()
    expect(page).to_have_url(re.compile(r"/jobs/[0-9a-f-]{36}$"))
    expect(page.get_by_role("heading", name="linear from the form")).to_be_visible()
    expect(page.locator("#curves")).to_be_hidden()
    job = seeded.service.get(f"/v1/jobs/{page.url.rpartition('/')[2]}")
    assert (job["method"], job["base"]) == ("linear", None)
    method = job["spec"]["method"]
    assert (method["C"], method["ngram_range"], method["min_df"]) == (8.0, [1, 3], None)
    seeded.service.post(f"/v1/jobs/{job['id']}/cancel", {})


def test_base_is_checked_before_anything_is_trained(
    page: Page, seeded: SeededService, browser_errors: BrowserErrors
) -> None:
    """The report itself is that of tests/app/base_models: here it would take seconds."""
    report = BaseModelReport(
        base="minilm-l6", commit=None, model_type="distilbert", road="fast", blocks=6, passes=6,
        width=384, max_tokens=512, parameters=22_713_986, adapted=(), head=(),
        trained_parameters=1, logits_difference=0.0, merge_difference=0.0, device="cpu",
        precision="fp32", tokens_per_second=1.0, trained_tokens_per_second=1.0,
        lora_memory_mb=1.0, full_memory_mb=1.0, peak_memory_mb=1.0,
    )  # fmt: skip
    sent: list[Any] = []

    def answer(route: Route) -> None:
        sent.append(route.request.post_data_json)
        route.fulfill(json=report.model_dump(mode="json"))

    page.goto("/jobs/new?data=reviews")
    expect(page.get_by_label("Base model", exact=True)).to_have_attribute(
        "placeholder", "minilm-l6"
    )
    button, shown = page.get_by_role("button", name="Check the base"), page.locator("#base-report")
    page.route("**/v1/bases/check", answer)
    button.click()
    expect(shown).to_contain_text(
        "distilbert, fast road: 6 blocks of width 384, 22,713,986 parameters"
    )
    assert sent == [{"base": "minilm-l6"}]
    page.unroute("**/v1/bases/check")
    browser_errors.expect(422)
    fill(page, Base_model="x/y/z")
    button.click()
    expect(shown).to_contain_text("x/y/z")


def test_field_error_is_shown_until_corrected(
    page: Page, seeded: SeededService, browser_errors: BrowserErrors
) -> None:
    browser_errors.expect(422)
    page.goto("/jobs/new?data=reviews")
    expect(page.get_by_role("radio", name=re.compile(r"^auto\b"))).to_be_checked()
    page.get_by_role("radio", name=re.compile(r"^lora\b")).check()
    fill(page, Rank_r="0", Name="from the form", Epochs="1")
    rank = page.get_by_label("Rank r")
    expect(rank).to_have_attribute("aria-invalid", "true")
    expect(rank).to_have_accessible_description(re.compile("at least 1"))
    page.get_by_role("button", name="Start job").click()
    expect(rank).to_be_focused()
    assert page.url.endswith("/jobs/new?data=reviews")

    rank.fill("3")
    expect(rank).not_to_have_attribute("aria-invalid", "true")
    page.get_by_role("button", name="Start job").click()
    expect(page).to_have_url(re.compile(r"/jobs/[0-9a-f-]{36}$"))
    expect(page.get_by_role("heading", name="from the form")).to_be_visible()
    job = seeded.service.get(f"/v1/jobs/{page.url.rpartition('/')[2]}")
    assert (job["name"], job["spec"]["method"]["r"]) == ("from the form", 3)
    assert (job["spec"]["optim"]["epochs"], job["method"]) == (1, "lora")
    seeded.service.post(f"/v1/jobs/{job['id']}/cancel", {})


def test_copied_job_may_get_another_method(page: Page, seeded: SeededService) -> None:
    """Settings without a field in the new method are not sent."""
    data = {"source": "reviews"}
    lora = {"method": {"type": "lora"}, "stop": {"patience": 3}, "data": data}
    job = seeded.service.post("/v1/jobs", lora)
    page.goto(f"/jobs/new?from={job['id']}")
    expect(page.get_by_label("Patience", exact=True)).to_have_value("3")
    page.get_by_role("radio", name=re.compile(r"^auto\b")).check()
    plan = seeded.service.post("/v1/jobs?dry_run=true", {"method": {"type": "auto"}, "data": data})
    count = f"{plan['parameters']['trainable']:,}"
    expect(page.get_by_label("Plan", exact=True)).to_contain_text(f"about {count}")
    expect(page.locator("#form-error")).to_be_empty()
    seeded.service.post(f"/v1/jobs/{job['id']}/cancel", {})


def test_snippets_match_the_request(page: Page, seeded: SeededService) -> None:
    page.goto("/jobs/new?data=reviews")
    page.get_by_role("radio", name=re.compile(r"^lora\b")).check()
    name = 'it\'s "quoted" $HOME `x`'
    fill(page, Name=name, Rank_r="2", Training_size="0.5", Learning_rate="3e-4")
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
    process = subprocess.run(
        [*program, *command[1:], "--dry-run", "--json"], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    plan = seeded.service.post("/v1/jobs?dry_run=true", body)
    assert json.loads(process.stdout)["spec"] == plan["spec"]


def test_duplicate_a_job(page: Page, seeded: SeededService) -> None:
    page.goto(f"/jobs/{seeded.jobs[SMALL]}")
    page.get_by_role("link", name="Duplicate").click()
    expect(page.get_by_label("Rank r")).to_have_value("2")
    expect(page.get_by_role("checkbox", name="query")).to_be_checked()
    expect(page.get_by_role("checkbox", name="mlp")).not_to_be_checked()
    fill(page, Rank_r="1", Name="once more")
    page.get_by_role("button", name="Start job").click()
    expect(page.get_by_role("heading", name="once more")).to_be_visible()
    again = seeded.service.get(f"/v1/jobs/{page.url.rpartition('/')[2]}")
    before = seeded.service.get(f"/v1/jobs/{seeded.jobs[SMALL]}")
    assert again["spec"]["method"] == {**before["spec"]["method"], "r": 1}
    assert again["spec"]["data"] == before["spec"]["data"]
    seeded.service.post(f"/v1/jobs/{again['id']}/cancel", {})


def test_form_submitted_before_its_script_has_loaded_is_sent(
    page: Page, seeded: SeededService
) -> None:
    pending: list[Route] = []
    page.route("**/new_job.js*", lambda route: pending.append(route))
    page.goto("/jobs/new?data=reviews", wait_until="commit")
    page.get_by_role("radio", name=re.compile(r"^linear\b")).check()
    fill(page, Name="early")
    page.get_by_role("button", name="Start job").click()
    [script] = pending
    script.continue_()
    expect(page.get_by_role("heading", name="early")).to_be_visible()
    job = seeded.service.get(f"/v1/jobs/{page.url.rpartition('/')[2]}")
    assert job["spec"]["method"]["type"] == "linear"


def test_source_by_split_is_kept(
    page: Page, seeded: SeededService, browser_errors: BrowserErrors
) -> None:
    browser_errors.expect(422)
    spec = {"method": {"type": "lora"}, "data": {"source": {"train": "imdb", "test": "imdb"}}}
    job = seeded.service.post("/v1/jobs", spec)
    seeded.service.post(f"/v1/jobs/{job['id']}/cancel", {})
    page.goto(f"/jobs/new?from={job['id']}")
    train, test = (page.get_by_label(f"Dataset, {split}") for split in ("train", "test"))
    test.fill("rotten-tomatoes")
    expect(page.locator("#command")).to_contain_text("--data train=imdb")
    expect(page.locator("#command")).to_contain_text("--data test=rotten-tomatoes")
    expect(page.locator("#curl")).to_contain_text('"train":"imdb","test":"rotten-tomatoes"')
    train.fill("")
    test.fill("")
    expect(page.locator("#form-error")).to_contain_text("train")
    page.get_by_role("button", name="Start job").click()
    expect(page.locator("#form-error")).to_contain_text("train")
    assert "/jobs/new?" in page.url
