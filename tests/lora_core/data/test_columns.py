import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lora_core.data import contents, load
from lora_core.data.contents import guess_columns, read_file_layout
from lora_core.data.rows import ColumnSelection
from lora_core.errors.data import MissingColumn

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
        (["a", "b"], [], (None, None)),
        (["a"], [[""]], (None, None)),
    ],
)
def test_guess_columns(
    names: list[str], rows: list[list[str]], guessed: tuple[str | None, str | None]
) -> None:
    assert guess_columns(names, rows) == guessed


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
        contents.read_contents(path, ColumnSelection())
    assert refused.value.detail["available"] == ", ".join(NAMES)
    with pytest.raises(MissingColumn, match=advice):
        load.read_single_source(str(path), ColumnSelection())
    with pytest.raises(MissingColumn, match=r"\(`--text-column Kommentar`\)"):
        contents.read_contents(path, ColumnSelection(label=None))
    with pytest.raises(MissingColumn, match="Name the right one with"):
        contents.read_contents(path, ColumnSelection("Kommentar", "Bewertung", "part"))
