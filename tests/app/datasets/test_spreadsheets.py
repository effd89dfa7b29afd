"""Uploads of workbooks, and of files with other column names."""

from collections.abc import Callable
from pathlib import Path

import pytest
import xlsxwriter
from starlette.testclient import TestClient

from tests.app.datasets.conftest import REVIEWS, Upload

ROWS = [line.split(",") for line in REVIEWS.splitlines()[1:]]


@pytest.fixture
def workbook(tmp_path: Path) -> Path:
    """A workbook with an empty sheet and two sheets of labeled texts."""
    path = tmp_path / "Kundenstimmen 2026.xlsx"
    with xlsxwriter.Workbook(path) as made:
        made.add_worksheet("Leer")
        for name, rows in (("Stimmen", ROWS), ("Wenige", ROWS[:4])):
            sheet = made.add_worksheet(name)
            sheet.write_row(0, 0, ["Nr", "Text", "Bewertung"])
            for number, (text, label) in enumerate(rows, start=1):
                sheet.write_row(number, 0, [number, text, {"pos": 1, "neg": 0}[label]])
    return path


COLUMNS = {"text_column": "Text", "label_column": "Bewertung"}


def test_upload_of_a_workbook(
    client: TestClient, upload: Upload, workbook: Path, stored_files: Callable[[], list[str]]
) -> None:
    response = upload(workbook, workbook.name, **COLUMNS)
    assert response.status_code == 201, response.text
    dataset = response.json()
    assert (dataset["ref"], dataset["sheet"]) == ("kundenstimmen-2026:1", "Stimmen")
    assert dataset["labels"] == {"0": 10, "1": 10}
    assert stored_files() == [f"{dataset['id']}.xlsx"]
    rows = client.get("/v1/datasets/kundenstimmen-2026/rows?limit=1").json()["data"]
    assert [(row["row"], row["text"], row["label"]) for row in rows] == [(1, ROWS[0][0], "1")]
    content = client.get("/v1/datasets/kundenstimmen-2026/content").content
    assert content == workbook.read_bytes()


def test_another_sheet_of_the_same_file_is_another_version(
    client: TestClient, upload: Upload, workbook: Path
) -> None:
    first = upload(workbook, workbook.name, **COLUMNS)
    other = upload(workbook, workbook.name, sheet="Wenige", **COLUMNS)
    assert (other.status_code, other.json()["version"], other.json()["rows"]) == (201, 2, 4)
    again = [
        upload(workbook, workbook.name, **COLUMNS, **sheet) for sheet in ({}, {"sheet": "Wenige"})
    ]
    assert [each.status_code for each in again] == [200, 200]
    assert [each.json()["id"] for each in again] == [first.json()["id"], other.json()["id"]]
    rows = client.get("/v1/datasets/kundenstimmen-2026:2/rows").json()["data"]
    assert len(rows) == 4
    checked = client.post("/v1/datasets/kundenstimmen-2026:2/check").json()
    assert checked["diagnosis"]["rows"] == 4
    missing = upload(workbook, workbook.name, sheet="Keine", **COLUMNS)
    assert (missing.status_code, missing.json()["code"]) == (422, "missing_sheet")
    assert "Sheets: Leer, Stimmen, Wenige" in missing.json()["detail"]


def test_a_workbook_of_texts_is_for_predictions(upload: Upload, workbook: Path) -> None:
    dataset = upload(workbook, workbook.name, purpose="predict", text_column="Text").json()
    assert (dataset["rows"], dataset["label_column"], dataset["sheet"]) == (20, None, "Stimmen")


def test_the_error_suggests_columns(upload: Upload, workbook: Path) -> None:
    response = upload(workbook, workbook.name)
    assert (response.status_code, response.json()["code"]) == (422, "missing_column")
    detail = response.json()["detail"]
    assert "Kundenstimmen 2026.xlsx has no column 'text'. Columns: Nr, Text, Bewertung." in detail
    assert "`text_column` 'Text' and `label_column` 'Bewertung'" in detail
    assert "--text-column Text --label-column Bewertung" in detail


def test_preview_returns_columns_and_rows_and_stores_nothing(
    client: TestClient, workbook: Path, stored_files: Callable[[], list[str]]
) -> None:
    def preview(content: bytes, name: str, **fields: str) -> dict[str, object]:
        response = client.post("/v1/datasets/preview", files={"file": (name, content)}, data=fields)
        assert response.status_code == 200, response.text
        found: dict[str, object] = response.json()
        return found

    first = enumerate(ROWS[:5], start=1)
    assert preview(workbook.read_bytes(), workbook.name) == {
        "columns": ["Nr", "Text", "Bewertung"],
        "rows": [[str(i), text, str(int(label == "pos"))] for i, (text, label) in first],
        "text_column": "Text",
        "label_column": "Bewertung",
        "encoding": None,
        "separator": None,
        "sheet": "Stimmen",
        "sheets": ["Leer", "Stimmen", "Wenige"],
    }
    assert preview(workbook.read_bytes(), workbook.name, sheet="Wenige")["sheet"] == "Wenige"
    semicolons = (
        "a;b\n" + "so lang war es;gut\nso kurz nicht;gut\nso auch nicht;übel\nund so;übel\n"
    )
    found = preview(semicolons.encode("cp1252"), "x.csv")
    assert (found["encoding"], found["separator"]) == ("Windows-1252", ";")
    assert (found["text_column"], found["label_column"]) == ("a", "b")
    refused = client.post("/v1/datasets/preview", files={"file": ("x.xls", b"\xd0\xcf\x11\xe0")})
    assert (refused.status_code, refused.json()["code"]) == (422, "unsupported_format")
    assert "save it as .xlsx" in refused.json()["detail"]
    assert stored_files() == []
