import csv
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xlsxwriter

from lora_core.data import file_inspection, files, load
from lora_core.data.corrections import write_corrected_file
from lora_core.data.file_inspection import guess_columns, read_file_layout
from lora_core.data.label_readers import LabelFormat
from lora_core.data.label_review_schemas import CorrectionPlan, RequestedLabelChange
from lora_core.data.rows import ColumnSelection
from lora_core.errors.data import MissingColumn, SameTextPairColumn

NAMES = ["Nr", "Kommentar", "Bewertung", "Sprache"]
ROWS = [[str(i), f"the film number {i} was long", ("good", "bad")[i % 2], "de"] for i in range(12)]
PARTS = [["x" * 9, "train"], ["y" * 9, "train"], ["z", "test"], ["a", "test"]]


@pytest.mark.parametrize(
    ("names", "rows", "guessed"),
    [
        (NAMES, ROWS, ("Kommentar", "Bewertung")),
        (["Text", "a", "Label"], [["x", "long " * 9, "1"], ["y", "z", "2"]], ("Text", "Label")),
        (["a", "b"], [["one text", "1"], ["another", "2"]], ("a", None)),  # a label comes back
        (["a", "split"], PARTS, ("a", None)),
        (["a", "\ufeffSplit "], PARTS, ("a", None)),
        (["a", "\ufeffText ", "b"], [["x" * 9, "y", "1"]], ("\ufeffText ", None)),
        (["a", "b"], [], (None, None)),
        (["a"], [[""]], (None, None)),
    ],
)
def test_guess_columns(
    names: list[str], rows: list[list[str]], guessed: tuple[str | None, str | None]
) -> None:
    assert guess_columns(names, rows) == guessed


UNSEEN = {
    " Kommentar\u200b": "Kommentar",  # as typed, and what it is in the file
    "Text\u00e9": "Texte\u0301",  # NFC and NFD
    "Split": "\ufeffSplit ",
}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "xlsx", "jsonl", "json", "parquet"])
def test_columns_are_found_by_names_that_look_the_same(tmp_path: Path, suffix: str) -> None:
    header = [*UNSEEN.values(), "text", "Texte"]
    rows = [[str(i % 2), f"film {i}", "train", "x", "y"] for i in range(4)]
    path = write_table(tmp_path / f"a.{suffix}", header, rows)
    label, text, split = UNSEEN
    columns = ColumnSelection(text, label, split)
    read = file_inspection.read_contents(path, columns)
    assert [(row.text, row.label, row.split) for row in read.rows] == [
        (row[1], row[0], row[2]) for row in rows
    ]
    whole = list(files.iter_whole_rows(path, text, pair_column=label))
    assert [row.text for row in whole] == [(row[1], row[0]) for row in rows]
    assert list(whole[0].cells) == header
    plan = CorrectionPlan(changes=(RequestedLabelChange(row=2, label="0", target=None),), keep=())
    (tmp_path / "out").mkdir()
    corrected = write_corrected_file(path, columns, plan, tmp_path / "out")
    assert corrected.file is not None
    labels = [row.label for row in files.read_rows(tmp_path / "out" / corrected.file, columns)]
    assert labels == ["0", "0", "0", "1"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_columns_of_zeros_and_ones_are_found_by_what_is_seen(tmp_path: Path, suffix: str) -> None:
    rows = [["a", "1", "0"], ["b", "0", "1"]]
    path = write_table(tmp_path / f"a.{suffix}", ["text", "toxic ", "e\u0301"], rows)
    label_format = LabelFormat("multi_label", columns=("toxic", "\u00e9"))
    columns = ColumnSelection(label_format=label_format)
    assert file_inspection.read_contents(path, columns).labels == ("toxic", "\u00e9")
    change = RequestedLabelChange(row=1, label='["toxic", "\u00e9"]', target=None)
    plan = CorrectionPlan(changes=(change,), keep=())
    (tmp_path / "out").mkdir()
    write_corrected_file(path, columns, plan, tmp_path / "out")
    whole = files.iter_whole_rows(tmp_path / "out" / path.name, "text")
    assert [list(row.cells.values()) for row in whole] == [["a", "1", "1"], ["b", "0", "1"]]


def test_an_exact_name_and_several_that_look_the_same(tmp_path: Path) -> None:
    path = write_table(
        tmp_path / "a.csv", ["text ", "text", "label ", " label"], [["a", "b", "c", "d"]]
    )
    assert files.read_rows(path, ColumnSelection(label="label "))[0].text == "b"
    with pytest.raises(MissingColumn, match="no column 'label'"):
        files.read_rows(path, ColumnSelection())
    path = write_table(tmp_path / "b.csv", ["text", "n"], [["a", "b"]])
    with pytest.raises(SameTextPairColumn):
        files.read_rows(path, ColumnSelection(label=None, pair="\u200btext"))


def write_table(path: Path, header: list[str], rows: list[list[str]]) -> Path:
    match path.suffix:
        case ".csv" | ".tsv":
            with path.open("w", newline="", encoding="utf-8") as file:
                separator = "," if path.suffix == ".csv" else "\t"
                csv.writer(file, delimiter=separator).writerows([header, *rows])
        case ".xlsx":
            with xlsxwriter.Workbook(path) as workbook:
                sheet = workbook.add_worksheet()
                for number, row in enumerate([header, *rows]):
                    sheet.write_row(number, 0, row)
        case ".jsonl" | ".json":
            records = [json.dumps(dict(zip(header, row, strict=True))) for row in rows]
            lines = "\n".join(records) if path.suffix == ".jsonl" else f"[{','.join(records)}]"
            path.write_text(lines)
        case _:
            pq.write_table(pa.table(list(map(list, zip(*rows, strict=True))), header), path)
    return path


@pytest.mark.parametrize("suffix", ["csv", "tsv", "xlsx"])
@pytest.mark.parametrize("title", [["Tickets 2026"], ["Tickets 2026", "", ""], ["a, b; c", "d"]])
def test_a_header_below_a_title_is_found(tmp_path: Path, suffix: str, title: list[str]) -> None:
    above = [[], ["Export", "", "x"]]
    rows = [["text", "label ", "n"], *([f"film {i}", "ab"[i % 2], "1"] for i in range(20))]
    path = write_table(tmp_path / f"a.{suffix}", title, above + rows)
    with pytest.raises(MissingColumn, match="seems to be in row 4: delete the rows above it"):
        file_inspection.read_contents(path, ColumnSelection())
    with pytest.raises(MissingColumn) as raised:
        file_inspection.read_contents(path, ColumnSelection(label="nothing"))
    assert "header" not in str(raised.value)


def test_other_sheets_are_named_if_a_column_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    with xlsxwriter.Workbook(path) as workbook:
        blank, cover, tickets = (workbook.add_worksheet(name) for name in ("Blank", "Cover", "All"))
        blank.write_row(0, 0, ["  ", " "])
        cover.write_row(0, 0, ["Tickets", "of 2026"])
        for number, row in enumerate([["text", "label"], ["x", "a"], ["y", "b"]]):
            tickets.write_row(number, 0, row)
    with pytest.raises(MissingColumn) as raised:
        file_inspection.read_contents(path, ColumnSelection())
    assert "The sheet 'Cover' was read; others are 'Blank', 'All' (`sheet`, `--sheet`)." in str(
        raised.value
    )
    read = file_inspection.read_contents(path, ColumnSelection(sheet="All"))
    assert [row.label for row in read.rows] == ["a", "b"]


def csv_file(path: Path) -> Path:
    file = path / "reviews.csv"
    file.write_text("\n".join(";".join(row) for row in [NAMES, *ROWS]) + "\n")
    return file


def jsonl_file(path: Path) -> Path:
    file = path / "reviews.jsonl"
    file.write_text("".join(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n" for row in ROWS))
    return file


def parquet_file(path: Path) -> Path:
    file = path / "reviews.parquet"
    columns = zip(*ROWS, strict=True)
    pq.write_table(pa.table(dict(zip(NAMES, map(list, columns), strict=True))), file)
    return file


@pytest.mark.parametrize("make", [csv_file, jsonl_file, parquet_file])
def test_inspect_columns_of_every_format(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    found = read_file_layout(make(tmp_path))
    assert found.columns == tuple(NAMES)
    assert found.rows == tuple(tuple(row) for row in ROWS[:5])
    assert (found.text_column, found.label_column) == ("Kommentar", "Bewertung")


def test_missing_column_error_suggests_options(tmp_path: Path) -> None:
    path = csv_file(tmp_path)
    advice = "--text-column Kommentar --label-column Bewertung"
    with pytest.raises(MissingColumn, match=advice) as refused:
        file_inspection.read_contents(path, ColumnSelection())
    assert refused.value.detail["available"] == ", ".join(NAMES)
    with pytest.raises(MissingColumn, match=advice):
        load.read_single_source(str(path), ColumnSelection())
    with pytest.raises(MissingColumn, match=r"\(`--text-column Kommentar`\)"):
        file_inspection.read_contents(path, ColumnSelection(label=None))
    with pytest.raises(MissingColumn, match="Name the right one with"):
        file_inspection.read_contents(path, ColumnSelection("Kommentar", "Bewertung", "part"))
