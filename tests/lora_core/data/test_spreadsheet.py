"""Workbooks written by XlsxWriter, or by hand where it cannot write them."""

import datetime
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xlsxwriter

from lora_core.data import file_inspection, files, load
from lora_core.data.rows import ColumnSelection, TextRow
from lora_core.errors import LoraCoreError
from lora_core.errors.data import (
    DataTooLarge,
    EmptyData,
    MalformedRow,
    MissingSheet,
    MissingText,
    UnsupportedFormat,
    WrongSeparator,
)
from lora_core.specs.data import Split

Sheets = dict[str, list[list[Any]]]
ONE = [["text", "label"], ["a", "x"], ["b", "y"]]


def workbook(path: Path, sheets: Sheets, **options: Any) -> Path:
    """A file with these rows from A1 on; None leaves a cell out."""
    with xlsxwriter.Workbook(path, {"default_date_format": "dd/mm/yyyy", **options}) as made:
        for name, rows in sheets.items():
            sheet = made.add_worksheet(name)
            for number, cells in enumerate(rows):
                sheet.write_row(number, 0, cells)
    return path


def read(path: Path, sheet: str | None = None) -> list[TextRow]:
    return files.read_rows(path, ColumnSelection(sheet=sheet))


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (1, "1"),
        (1.0, "1"),
        (-3, "-3"),
        (2.5, "2.5"),
        (0.1 + 0.2, "0.3"),
        (True, "true"),
        (" good ", "good"),
        ("1.0", "1.0"),
        (datetime.date(2026, 3, 31), "2026-03-31"),
        (datetime.datetime(2026, 3, 31, 14, 30), "2026-03-31 14:30:00"),
    ],
)
def test_labels_are_formatted_as_in_excel(tmp_path: Path, value: object, label: str) -> None:
    path = workbook(tmp_path / "a.xlsx", {"S": [["text", "label"], ["a", value], ["b", "y"]]})
    assert [row.label for row in read(path)] == [label, "y"]


def test_texts_may_be_numbers_and_have_several_lines(tmp_path: Path) -> None:
    rows: list[list[Any]] = [
        ["label", "text"],
        ["x", 1917],
        ["y", "two\nlines, “ö”"],
        ["x", "a_x000D_\nb"],
    ]
    path = workbook(tmp_path / "a.xlsx", {"S": rows})
    assert [row.text for row in read(path)] == ["1917", "two\nlines, “ö”", "a\nb"]


def test_rows_are_numbered_as_in_excel(tmp_path: Path) -> None:
    sheet: list[list[Any]] = [[], ["text", "label"], ["a", "x"], [], ["b", "y"], [" ", None], []]
    path = workbook(tmp_path / "a.xlsx", {"S": sheet})
    found, reading = files.read_rows_and_info(path, ColumnSelection())
    assert found == [TextRow(1, "a", "x"), TextRow(3, "b", "y")]
    assert reading.blank_rows == 2
    rows = [*sheet, ["c", None]]
    with pytest.raises(LoraCoreError, match=r"rows without a label: 1 \(first: 6\)"):
        read(workbook(tmp_path / "a.xlsx", {"S": rows}))


def test_first_nonempty_or_named_sheet_is_read(tmp_path: Path) -> None:
    sheets: Sheets = {"Empty": [], "2025": ONE, "2026": [["text", "label"], ["c", 1], ["d", 2]]}
    path = workbook(tmp_path / "a.xlsx", sheets)
    found = file_inspection.read_contents(path, ColumnSelection())
    assert [row.text for row in found.rows] == ["a", "b"]
    assert (found.parse_info.sheet, found.parse_info.sheets) == ("2025", ("Empty", "2025", "2026"))
    assert [row.text for row in read(path, "2026")] == ["c", "d"]
    with pytest.raises(MissingSheet, match=r"no sheet '2024'. Sheets: Empty, 2025, 2026"):
        read(path, "2024")
    with pytest.raises(EmptyData):
        read(path, "Empty")


def test_a_sheet_is_found_by_what_is_seen_of_its_name(tmp_path: Path) -> None:
    """The API composes the letters of a name; titles made of file names on macOS are not."""
    sheets: Sheets = {"x": [["text", "label"]], "Cafe\u0301": ONE}
    assert len(read(workbook(tmp_path / "a.xlsx", sheets), "Caf\u00e9")) == 2


def test_one_sheet_per_split(tmp_path: Path) -> None:
    sheets: Sheets = {"Train": ONE, "Test": [["text", "label"], ["c", "x"]]}
    path = workbook(tmp_path / "Reviews.XLSX", sheets)
    parts = {Split.TRAIN: f"{path}#Train", Split.TEST: f"{path}#Test"}
    found = load.read_source(parts, ColumnSelection())
    assert {part: [row.text for row in rows] for part, rows in found.items()} == {
        Split.TRAIN: ["a", "b"],
        Split.TEST: ["c"],
    }
    with pytest.raises(MissingSheet, match=r"^Reviews\.XLSX has no sheet 'Dev'"):
        load.read_source(f"{path}#Dev", ColumnSelection())


def test_hidden_sheet_is_read_by_name_only(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    with xlsxwriter.Workbook(path) as made:
        made.add_worksheet("Shown")
        hidden = made.add_worksheet("Hidden")
        for number, cells in enumerate(ONE):
            hidden.write_row(number, 0, cells)
        hidden.hide()
    with pytest.raises(EmptyData):
        read(path)
    assert len(read(path, "Hidden")) == 2


def test_sheet_of_a_csv_file_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,x\nb,y\n")
    with pytest.raises(MissingSheet, match=r"only \.xlsx files have sheets"):
        read(path, "S")


def test_formulas_return_the_last_computed_value(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    with xlsxwriter.Workbook(path) as made:
        sheet = made.add_worksheet()
        sheet.write_row(0, 0, ["text", "label", "note"])
        sheet.write_formula(1, 0, '=A1&"s"', None, "texts")
        sheet.write_row(1, 1, ["x"])
        sheet.write_row(2, 0, ["b", "y"])
        sheet.write_formula(2, 2, "=1/0", None, "#DIV/0!")  # in an unused column
    assert read(path) == [TextRow(1, "texts", "x"), TextRow(2, "b", "y")]
    assert [record.cells["note"] for record in files.iter_whole_rows(path, "text")] == [
        "",
        "#DIV/0!",
    ]
    with xlsxwriter.Workbook(path) as made:
        sheet = made.add_worksheet()
        sheet.write_row(0, 0, ["text", "label"])
        sheet.write_row(1, 0, ["a", "x"])
        sheet.write_row(2, 0, ["b"])
        sheet.write_formula(2, 1, "=VLOOKUP(1,D1:E2,2)", None, "#N/A")
    with pytest.raises(MalformedRow, match="row 2: a formula has the error #N/A"):
        read(path)


def test_links_comments_and_extensions_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    with xlsxwriter.Workbook(path) as made:
        sheet = made.add_worksheet()
        for number, cells in enumerate(ONE):
            sheet.write_row(number, 0, cells)
        sheet.write_formula(1, 3, "='/etc/[passwd]S'!A1", None, "linked")
        sheet.write_comment(1, 0, "a note")
        sheet.add_sparkline(2, 3, {"range": "A1:A2"})  # an extension, of which it warns
        sheet.data_validation(1, 1, 2, 1, {"validate": "list", "source": ["x", "y"]})
        sheet.conditional_format(1, 0, 2, 0, {"type": "2_color_scale"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(MalformedRow, match="cell D2 is in a column without a name"):
            read(path)


def test_unsplit_column_is_reported(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", {"S": [["text;label"], ["a;x"], ["b;y"]]})
    with pytest.raises(WrongSeparator, match="seem to be separated by ';'"):
        read(path)


def test_read_records_returns_whole_rows(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", {"S": [["id", "text", "on"], [7, "a", True], [8, "b"]]})
    assert [record.cells for record in files.iter_whole_rows(path, "text")] == [
        {"id": "7", "text": "a", "on": "true"},
        {"id": "8", "text": "b", "on": ""},
    ]
    workbook(path, {"S": [["id", "text"], [7, "a"], [8, None]]})
    with pytest.raises(MissingText):
        list(files.iter_whole_rows(path, "text"))


# -- hostile workbooks -----------------------------------------------------------------------------


def rewrite_member(path: Path, part: str, change: Callable[[bytes], bytes]) -> Path:
    """The same archive with one part changed."""
    with zipfile.ZipFile(path) as archive:
        parts = {each.filename: archive.read(each) for each in archive.infolist()}
    parts[part] = change(parts[part])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


NAMES = (b"text", b"label")
SHEET = "xl/worksheets/sheet1.xml"


def replace_rows(rows: bytes) -> Callable[[bytes], bytes]:
    data = b"<sheetData>" + rows + b"</sheetData>"
    return lambda xml: re.sub(b"<sheetData>.*</sheetData>", lambda _: data, xml, flags=re.DOTALL)


def set_declared_size(path: Path, size: int) -> None:
    """The directory of the archive claims another size for the sheet."""
    content = bytearray(path.read_bytes())
    claim = content.rindex(SHEET.encode()) - 46 + 24
    assert content[claim - 24 :].startswith(b"PK\x01\x02")
    content[claim : claim + 4] = size.to_bytes(4, "little")
    path.write_bytes(content)


def unpacked_size(path: Path) -> None:
    set_declared_size(path, 501_000_000)


def more_than_it_claims(path: Path) -> None:
    rewrite_member(path, SHEET, lambda xml: xml + b" " * 1_000_000)
    set_declared_size(path, 1_000)


def too_many_columns(path: Path) -> None:
    cells = b"".join(b'<c t="inlineStr"><is><t>c%d</t></is></c>' % i for i in range(2_000))
    rewrite_member(path, SHEET, replace_rows(b"<row>" + cells + b"</row>"))


def distant_row(path: Path) -> None:
    cells = b"".join(b'<c t="inlineStr"><is><t>%b</t></is></c>' % name for name in NAMES)
    rows = b'<row r="1">%b</row><row r="9999999999">%b</row>' % (cells, cells)
    rewrite_member(path, SHEET, replace_rows(rows))


def billion_laughs(path: Path) -> None:
    entities = b"".join(b'<!ENTITY e%d "%b">' % (i + 1, b"&e%d;" % i * 10) for i in range(12))
    doctype = b'<!DOCTYPE w [<!ENTITY e0 "ha">' + entities + b"]>"
    bomb = b'<row><c t="inlineStr"><is><t>&e12;</t></is></c></row>'
    rewrite_member(path, SHEET, replace_rows(bomb))
    rewrite_member(path, SHEET, lambda xml: xml.replace(b"?>", b"?>" + doctype, 1))


def external_entity(path: Path) -> None:
    doctype = b'<!DOCTYPE w [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
    row = b'<row><c t="inlineStr"><is><t>&e;</t></is></c></row>'
    rewrite_member(path, SHEET, replace_rows(row))
    rewrite_member(path, SHEET, lambda xml: xml.replace(b"?>", b"?>" + doctype, 1))


def no_shared_strings(path: Path) -> None:
    rewrite_member(path, "xl/sharedStrings.xml", lambda _: b"<sst/>")


def truncated_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


def corrupt_sheet(path: Path) -> None:
    content = bytearray(path.read_bytes())
    at = content.index(SHEET.encode()) + 60
    content[at : at + 200] = bytes(200)
    path.write_bytes(content)


def other_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", "text,label\n")


def no_archive(path: Path) -> None:
    path.write_text("text,label\na,x\n")


def password(path: Path) -> None:
    path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (unpacked_size, DataTooLarge, "its unpacked size"),
        (more_than_it_claims, UnsupportedFormat, "damaged"),
        (too_many_columns, DataTooLarge, "the number of columns"),
        (distant_row, DataTooLarge, "the number of rows"),
        (billion_laughs, UnsupportedFormat, "damaged"),
        (external_entity, UnsupportedFormat, "damaged"),
        (no_shared_strings, UnsupportedFormat, "damaged"),
        (truncated_file, UnsupportedFormat, "damaged"),
        (corrupt_sheet, UnsupportedFormat, "damaged"),
        (other_archive, UnsupportedFormat, "damaged"),
        (no_archive, UnsupportedFormat, "not an Excel workbook"),
        (password, UnsupportedFormat, "has a password or an old format; save it as .xlsx"),
    ],
)
def test_damaged_or_huge_workbook_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], error: type[LoraCoreError], message: str
) -> None:
    path = workbook(tmp_path / "a.xlsx", {"S": ONE})
    damage(path)
    with pytest.raises(error, match=message):
        read(path)
    path.unlink()
