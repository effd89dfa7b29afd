"""Datasets: upload, column picker, upload errors, and data checks."""

import re
from pathlib import Path

import pytest
import xlsxwriter
from playwright.sync_api import FilePayload, Page, Route, expect

from tests.browser import upload_files
from tests.browser.browser_errors import BrowserErrors
from tests.browser.seeded_service import SeededService

# Dispatches the events of a drag and drop with a file.
DROP_FILE = """(form, [name, text]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([text], name, {type: "text/csv"}));
  const options = {dataTransfer: transfer, bubbles: true, cancelable: true};
  for (const kind of ["dragenter", "dragover", "drop"]) {
    form.dispatchEvent(new DragEvent(kind, options));
  }
}"""
ROWS = [f"My parcel {i} is late,delivery\nBill {i},billing\n" for i in range(9)]
TICKETS = "".join(["text,label\n", *ROWS])
DATASET_URL = re.compile(r"/datasets/[0-9a-f-]{36}$")
EXPECTED_FINDINGS = {  # in the file of write_tickets
    "conflicting_labels", "duplicates", "imbalanced", "leaked", "near_duplicates",
    "similar_labels", "truncated", "unknown_tokens",
}  # fmt: skip


def drop(page: Page, name: str, text: str) -> None:
    page.locator("#upload").evaluate(DROP_FILE, [name, text])


def test_dropped_file_is_uploaded(page: Page, seeded: SeededService) -> None:
    page.goto("/datasets")
    drop(page, "My Dropped Tickets.csv", TICKETS)
    expect(page).to_have_url(DATASET_URL)
    expect(page.get_by_role("heading", name="my-dropped-tickets")).to_be_visible()
    result = seeded.service.get("/v1/datasets/my-dropped-tickets")
    assert (result["rows"], result["labels"]) == (18, {"billing": 9, "delivery": 9})
    expect(page.get_by_text("18 rows with 2 labels")).to_be_visible()
    expect(page.locator("#labels")).to_contain_text("50.0%")
    expect(page.locator("#rows")).to_contain_text("My parcel 0 is late")
    page.get_by_role("link", name="Train a model").click()
    source = page.get_by_label("Dataset", exact=True)
    expect(source).to_have_value(re.compile("^my-dropped-tickets"))


def test_chosen_file_with_name_and_columns(
    page: Page, seeded: SeededService, tmp_path: Path
) -> None:
    path = upload_files.write(tmp_path / "any.csv", [("a", "x"), ("b", "y")] * 5, ("body", "kind"))
    page.goto("/datasets")
    page.get_by_label("File", exact=True).set_input_files(path)
    page.get_by_label("Name", exact=True).fill("chosen")
    page.get_by_text("Columns and kinds of labels").click()
    page.get_by_label("Text column", exact=True).fill("body")
    page.get_by_label("Label column", exact=True).fill("kind")
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("heading", name="chosen")).to_be_visible()
    assert seeded.service.get("/v1/datasets/chosen")["text_column"] == "body"


def test_first_rows_are_shown_and_one_click_uploads(page: Page, seeded: SeededService) -> None:
    page.goto("/datasets")
    file: FilePayload = {"name": "seen.csv", "mimeType": "text/csv", "buffer": TICKETS.encode()}
    page.get_by_label("File", exact=True).set_input_files(file)
    expect(page.locator("#preview-rows")).to_contain_text("My parcel 0 is late")
    expect(page.get_by_role("heading", name="Choose columns")).to_be_hidden()
    expect(page.get_by_label("Sheet of the file")).to_be_hidden()
    page.get_by_role("button", name="Upload").click()
    expect(page).to_have_url(DATASET_URL)
    result = seeded.service.get("/v1/datasets/seen")
    assert (result["rows"], result["text_column"], result["sheet"]) == (18, "text", None)


def write_months(path: Path) -> Path:
    """Write a workbook with two sheets that could both be read."""
    with xlsxwriter.Workbook(path) as made:
        for month in ("May", "June"):
            sheet = made.add_worksheet(month)
            sheet.write_row(0, 0, ["text", "label"])
            for i in range(20):
                sheet.write_row(i + 1, 0, [f"{month} parcel {i}", ("good", "bad")[i % 2]])
    return path


def test_sheet_can_be_chosen_before_the_upload(
    page: Page, seeded: SeededService, tmp_path: Path
) -> None:
    page.goto("/datasets")
    page.get_by_label("File", exact=True).set_input_files(write_months(tmp_path / "months.xlsx"))
    sheet = page.get_by_label("Sheet of the file")
    expect(sheet).to_have_value("May")
    expect(page.locator("#preview-rows")).to_contain_text("May parcel 0")
    sheet.select_option("June")
    expect(page.locator("#preview-rows")).to_contain_text("June parcel 0")
    page.get_by_role("button", name="Upload").click()
    expect(page).to_have_url(DATASET_URL)
    assert seeded.service.get("/v1/datasets/months")["sheet"] == "June"


def test_sheet_is_asked_for_before_anything_is_stored(
    page: Page, seeded: SeededService, tmp_path: Path
) -> None:
    """A press of Upload that is faster than the preview, as after a drop, waits for the answer."""
    pending: list[Route] = []
    page.route("**/v1/datasets/preview", lambda route: pending.append(route))
    page.goto("/datasets")
    page.get_by_label("File", exact=True).set_input_files(write_months(tmp_path / "asked.xlsx"))
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("button", name="Upload")).to_be_disabled()
    [preview] = pending
    preview.continue_()
    expect(page.get_by_label("Sheet of the file")).to_be_focused()
    assert page.url.endswith("/datasets")
    page.get_by_role("button", name="Upload").click()
    expect(page).to_have_url(DATASET_URL)
    assert seeded.service.get("/v1/datasets/asked")["sheet"] == "May"


def test_column_picker(
    page: Page, seeded: SeededService, browser_errors: BrowserErrors, tmp_path: Path
) -> None:
    browser_errors.expect(422)
    path = tmp_path / "Kundenstimmen.xlsx"
    with xlsxwriter.Workbook(path) as made:
        made.add_worksheet("Deckblatt").write("A1", "für 2026")
        sheet = made.add_worksheet("Stimmen")
        sheet.write_row(0, 0, ["Nr.", "Bewertung", "Meinung"])
        for i in range(20):
            mood = ("gut", "schlecht")[i % 2]
            sheet.write_row(i + 1, 0, [i, mood, f"Die Lieferung {i} war {mood}"])
    page.goto("/datasets")
    page.get_by_label("File", exact=True).set_input_files(path)
    page.get_by_label("Name", exact=True).fill("Größe (Mai)")
    sheet_of_file = page.get_by_label("Sheet of the file")
    expect(sheet_of_file).to_have_value("Deckblatt")
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("heading", name="Choose columns")).to_be_visible()
    sheet_of_file.select_option("Stimmen")
    expect(page.locator("#preview-rows")).to_contain_text("Die Lieferung 4 war gut")
    expect(page.get_by_label("Text column of the file")).to_have_value("Meinung")
    expect(page.get_by_label("Label column of the file")).to_have_value("Bewertung")
    page.get_by_role("button", name="Upload").click()
    expect(page).to_have_url(DATASET_URL)
    expect(page.get_by_role("heading", name="Größe (Mai)")).to_be_visible()
    result = seeded.service.get("/v1/datasets/grosse-mai")
    assert (result["text_column"], result["sheet"]) == ("Meinung", "Stimmen")
    assert result["labels"] == {"gut": 10, "schlecht": 10}


def test_column_picker_keeps_the_second_text(
    page: Page, seeded: SeededService, browser_errors: BrowserErrors
) -> None:
    browser_errors.expect(422)
    rows = "".join(f"{i},Is it {i}?,It is {i}.,{('no', 'yes')[i % 2]}\n" for i in range(20))
    page.goto("/datasets")
    page.get_by_text("Columns and kinds of labels").click()
    page.get_by_label("Second text column", exact=True).fill("answer")
    page.get_by_label("Label column", exact=True).fill("right")
    drop(page, "answers.csv", "number,question,answer,right\n" + rows)
    expect(page.get_by_label("Second text column, for pairs")).to_have_value("answer")
    page.get_by_label("Text column of the file").select_option("question")
    page.get_by_role("button", name="Upload").click()
    expect(page).to_have_url(DATASET_URL)
    result = seeded.service.get("/v1/datasets/answers")
    assert (result["text_column"], result["text_pair_column"]) == ("question", "answer")


def test_texts_without_labels_lead_to_a_labeling_project(
    page: Page, seeded: SeededService, browser_errors: BrowserErrors
) -> None:
    browser_errors.expect(422)
    page.goto("/datasets")
    drop(page, "with-notes.csv", "note,body\n" + "".join(f"{i},Parcel {i}\n" for i in range(9)))
    labels = page.get_by_label("Label column of the file")
    labels.select_option("none: the texts have no labels yet")
    page.get_by_label("Text column of the file").select_option("body")
    drop(page, "only-texts.csv", "body\n" + "".join(f"Parcel {i}\n" for i in range(9)))
    expect(labels).to_have_value("\0")  # there is no other column
    page.get_by_role("button", name="Upload").click()
    expect(page).to_have_url(DATASET_URL)
    assert seeded.service.get("/v1/datasets/only-texts-to-predict")["label_column"] is None
    page.get_by_role("link", name="Label these texts").click()
    expect(page.get_by_label("Texts", exact=True)).to_have_value("only-texts-to-predict:1")


def test_another_file_resets_the_column_picker(page: Page, browser_errors: BrowserErrors) -> None:
    browser_errors.expect(422)
    page.goto("/datasets")
    drop(page, "other.csv", TICKETS.replace("text,label", "words,kind"))
    expect(page.get_by_role("heading", name="Choose columns")).to_be_visible()
    drop(page, "tickets-again.csv", TICKETS)
    expect(page).to_have_url(DATASET_URL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text,label\nfine,a\n,b\n", "rows without text: 1 (first: 2)"),
        ("", "has no rows"),
        ('text,label\n"never closed,a\n', "broken.csv"),
    ],
)
def test_upload_errors(text: str, message: str, page: Page, browser_errors: BrowserErrors) -> None:
    browser_errors.expect(422)
    page.goto("/datasets")
    drop(page, "broken.csv", text)
    expect(page.get_by_role("alert").filter(has_text=message)).to_be_visible()
    expect(page.locator("#upload [aria-invalid=true]")).to_be_focused()
    assert page.url.endswith("/datasets")
    drop(page, "mended.csv", TICKETS)  # the form still works
    expect(page).to_have_url(DATASET_URL)


def test_data_checks(page: Page, seeded: SeededService) -> None:
    page.goto("/datasets")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="tickets:1", exact=True))
    expect(row).to_contain_text(re.compile(r"\d (warning|error)"))
    row.get_by_role("link").click()
    expect(page.get_by_role("heading", name="Data checks")).to_be_visible()
    found = seeded.service.get("/v1/datasets/tickets")["diagnosis"]["findings"]
    assert {each["code"] for each in found} >= EXPECTED_FINDINGS
    for each in found:
        result = page.locator(f"#finding-{each['code']}")
        expect(result).to_contain_text(each["message"])
        expect(result).to_contain_text(each["advice"])
    leak = page.locator("#finding-leaked")
    leak.locator("summary").click()
    expect(leak.locator(".finding-examples li").first).to_contain_text(
        re.compile("train.*test", re.DOTALL)
    )
