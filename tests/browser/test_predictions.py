"""Prediction runs: upload, progress, download and form errors."""

import csv
from pathlib import Path

import pytest
from playwright.sync_api import FilePayload, Page, expect

from tests.browser.browser_errors import BrowserErrors
from tests.browser.seeded_service import JOB_TIMEOUT, MODEL, SeededService

TABLE = "id,text\n1,a lovely film\n2,=1+1\n3,a bad end\n"


def file(content: str = TABLE, name: str = "new.csv") -> FilePayload:
    return {"name": name, "mimeType": "text/csv", "buffer": content.encode()}


@pytest.fixture
def form(page: Page) -> Page:
    page.goto(f"/predictions?model={MODEL}:2")
    expect(page.get_by_label("Model")).to_have_value(f"{MODEL}:2")
    return page


def test_predict_a_file(form: Page, tmp_path: Path) -> None:
    form.get_by_label("File", exact=True).set_input_files(file())
    form.get_by_role("button", name="Predict").click()
    form.wait_for_url("**/predictions/*-*")
    expect(form.get_by_role("status")).to_contain_text("succeeded", timeout=JOB_TIMEOUT)
    expect(form.locator("#status")).to_contain_text("3 rows")
    expect(form.locator("#predicted tbody tr").first).to_contain_text("%")
    with form.expect_download() as download:
        form.get_by_role("link", name="Download CSV").click()
    download.value.save_as(tmp_path / "out.csv")
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [(row["id"], row["text"]) for row in rows] == [
        ("1", "a lovely film"), ("2", "'=1+1"), ("3", "a bad end")
    ]  # fmt: skip
    assert {row["predicted_label"] for row in rows} <= {"good", "bad"}
    form.get_by_role("link", name="Predictions").first.click()
    expect(form.locator("#runs")).to_contain_text("new-to-predict:1")


def test_form_errors(form: Page, seeded: SeededService, browser_errors: BrowserErrors) -> None:
    browser_errors.expect(422)
    runs = len(seeded.service.get("/v1/predictions")["data"])
    error, send = form.locator("#upload-error"), form.get_by_role("button", name="Predict")
    send.click()
    expect(error).to_have_text("Choose a file or drop one here.")
    form.get_by_label("File", exact=True).set_input_files(file("id,body\n1,a film\n", "other.csv"))
    send.click()
    column_select = form.get_by_label("Text column of the file")
    expect(column_select).to_be_focused()
    expect(form.locator("#preview-rows")).to_contain_text("a film")
    column = form.get_by_label("Text column", exact=True)
    expect(column).to_have_value("body")  # the longer texts
    column.fill("nothing")
    send.click()
    expect(error).to_contain_text("no column 'nothing'")
    expect(column).to_have_attribute("aria-invalid", "true")
    expect(column).to_be_focused()
    form.locator("#upload").evaluate("(each) => (each.dataset.maxBytes = 10)")
    send.click()
    expect(error).to_contain_text("larger than the upload limit")
    assert len(seeded.service.get("/v1/predictions")["data"]) == runs
    form.locator("#upload").evaluate("(each) => (each.dataset.maxBytes = 1e6)")
    column_select.select_option("id")
    expect(column).to_have_value("id")
    column_select.select_option("body")
    send.click()
    form.wait_for_url("**/predictions/*-*")
