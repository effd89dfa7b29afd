"""Data: a file is dropped and looked at, a broken one is refused in words, faults are found."""

import re
from pathlib import Path

import pytest
import xlsxwriter
from playwright.sync_api import Page, expect

from tests.browser import files
from tests.browser.complaints import Complaints
from tests.browser.scene import Scene

# A drop as a browser makes it: with a file that the page may read.
DROP = """(form, [name, text]) => {
  const carried = new DataTransfer();
  carried.items.add(new File([text], name, {type: "text/csv"}));
  const options = {dataTransfer: carried, bubbles: true, cancelable: true};
  for (const kind of ["dragenter", "dragover", "drop"]) {
    form.dispatchEvent(new DragEvent(kind, options));
  }
}"""
ROWS = [f"My parcel {i} is late,delivery\nBill {i},billing\n" for i in range(9)]
TICKETS = "".join(["text,label\n", *ROWS])
ALONE = re.compile(r"/datasets/[0-9a-f-]{36}$")
PLANTED = {  # by files.write_tickets
    "conflicting_labels", "duplicates", "imbalanced", "leaked", "near_duplicates",
    "similar_labels", "truncated", "unknown_tokens",
}  # fmt: skip


def drop(page: Page, name: str, text: str) -> None:
    page.locator("#upload").evaluate(DROP, [name, text])


def test_a_file_that_is_dropped_is_checked_and_shown(page: Page, scene: Scene) -> None:
    page.goto("/datasets")
    drop(page, "My Dropped Tickets.csv", TICKETS)
    expect(page).to_have_url(ALONE)
    expect(page.get_by_role("heading", name="my-dropped-tickets")).to_be_visible()
    told = scene.service.get("/v1/datasets/my-dropped-tickets")
    assert (told["rows"], told["labels"]) == (18, {"billing": 9, "delivery": 9})
    expect(page.get_by_text("18 rows with 2 labels")).to_be_visible()
    expect(page.locator("#labels")).to_contain_text("50.0 %")
    expect(page.locator("#rows")).to_contain_text("My parcel 0 is late")
    page.get_by_role("link", name="Train on it").click()
    expect(page.get_by_label("Texts and labels")).to_have_value(re.compile("^my-dropped-tickets"))


def test_a_file_is_chosen_and_named(page: Page, scene: Scene, tmp_path: Path) -> None:
    path = files.write(tmp_path / "any.csv", [("a", "x"), ("b", "y")] * 5, ("body", "kind"))
    page.goto("/datasets")
    page.get_by_label("File", exact=True).set_input_files(path)
    page.get_by_label("Name").fill("chosen")
    page.get_by_text("Columns, and files without labels").click()
    page.get_by_label("Text column").fill("body")
    page.get_by_label("Label column").fill("kind")
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("heading", name="chosen")).to_be_visible()
    assert scene.service.get("/v1/datasets/chosen")["text_column"] == "body"


def test_columns_with_other_names_are_chosen_from_the_first_rows(
    page: Page, scene: Scene, complaints: Complaints, tmp_path: Path
) -> None:
    complaints.expect(422)
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
    page.get_by_label("Name").fill("Größe (Mai)")
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("heading", name="Which columns?")).to_be_visible()
    page.get_by_label("They are on the sheet").select_option("Stimmen")
    expect(page.locator("#pick-rows")).to_contain_text("Die Lieferung 4 war gut")
    expect(page.get_by_label("The texts are in")).to_have_value("Meinung")
    expect(page.get_by_label("Their labels are in")).to_have_value("Bewertung")
    page.get_by_role("button", name="Upload").click()
    expect(page).to_have_url(ALONE)
    expect(page.get_by_role("heading", name="Größe (Mai)")).to_be_visible()
    told = scene.service.get("/v1/datasets/grosse-mai")
    assert (told["text_column"], told["sheet"]) == ("Meinung", "Stimmen")
    assert told["labels"] == {"gut": 10, "schlecht": 10}


def test_what_was_chosen_goes_with_its_file(page: Page, complaints: Complaints) -> None:
    complaints.expect(422)
    page.goto("/datasets")
    drop(page, "other.csv", TICKETS.replace("text,label", "words,kind"))
    expect(page.get_by_role("heading", name="Which columns?")).to_be_visible()
    drop(page, "tickets-again.csv", TICKETS)
    expect(page).to_have_url(ALONE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("text,label\nfine,a\n,b\n", "no text in 1 of the rows, first in 2"),
        ("", "has no rows"),
        ('text,label\n"never closed,a\n', "broken.csv"),
    ],
)
def test_a_broken_file_is_refused_with_what_is_wrong_and_where(
    text: str, said: str, page: Page, complaints: Complaints
) -> None:
    complaints.expect(422)
    page.goto("/datasets")
    drop(page, "broken.csv", text)
    expect(page.get_by_role("alert").filter(has_text=said)).to_be_visible()
    expect(page.locator("#upload [aria-invalid=true]")).to_be_focused()
    assert page.url.endswith("/datasets")
    drop(page, "mended.csv", TICKETS)  # the form still works
    expect(page).to_have_url(ALONE)


def test_the_doctor_finds_what_was_planted(page: Page, scene: Scene) -> None:
    page.goto("/datasets")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="tickets:1", exact=True))
    expect(row).to_contain_text(re.compile(r"\d (warning|error)"))
    row.get_by_role("link").click()
    expect(page.get_by_role("heading", name="What to look at")).to_be_visible()
    found = scene.service.get("/v1/datasets/tickets")["diagnosis"]["findings"]
    assert {each["code"] for each in found} >= PLANTED
    for each in found:
        told = page.locator(f"#finding-{each['code']}")
        expect(told).to_contain_text(each["message"])
        expect(told).to_contain_text(each["advice"])
    leak = page.locator("#finding-leaked")
    leak.get_by_text("Look at").click()
    expect(leak.locator(".examples-of li").first).to_contain_text(
        re.compile("train.*test", re.DOTALL)
    )
