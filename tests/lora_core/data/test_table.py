"""Full rows of files in each format."""

import datetime
import decimal
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lora_core.data import files
from lora_core.data.files import WholeRow
from lora_core.errors import LoraCoreError
from lora_core.errors.data import (
    DataTooLarge,
    EmptyData,
    MalformedRow,
    MissingColumn,
    MissingText,
    ReservedColumn,
    UndecodableText,
)


def read(path: Path, content: str | bytes, text_column: str = "text") -> list[WholeRow]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(files.iter_whole_rows(path, text_column))


def test_csv_row_keeps_cells_in_order(tmp_path: Path) -> None:
    found = read(tmp_path / "a.csv", 'id,text,\n7,"a, ""b""\nc",x\n\n8,d,\n')
    assert found == [
        WholeRow(1, 'a, "b"\nc', {"id": "7", "text": 'a, "b"\nc', "": "x"}),
        WholeRow(3, "d", {"id": "8", "text": "d", "": ""}),
    ]
    assert list(found[0].cells) == ["id", "text", ""]


def test_blank_names_become_those_of_a_spreadsheet(tmp_path: Path) -> None:
    header = ["", *(f"n{i}" for i in range(25)), "", "text", " "]
    found = read(tmp_path / "a.csv", f"{','.join(header)}\n{','.join('x' * len(header))}\n")
    assert list(found[0].cells) == ["column A", *header[1:26], "column AA", "text", " "]
    pq.write_table(pa.table([["a"], [1], [2]], ["text", "", ""]), tmp_path / "a.parquet")
    with pytest.raises(MalformedRow, match="column '' is duplicated"):
        list(files.iter_whole_rows(tmp_path / "a.parquet", "text"))


def test_tsv_cells_are_separated_by_tabs(tmp_path: Path) -> None:
    assert read(tmp_path / "a.tsv", "body\tn\na,b\t1\n", "body")[0].cells == {
        "body": "a,b",
        "n": "1",
    }


def test_jsonl_objects_are_kept_unchanged(tmp_path: Path) -> None:
    rows = [{"text": "a", "n": 1.5, "deep": {"x": [1, None]}}, {"other": True, "text": "b"}]
    found = read(tmp_path / "a.jsonl", "\n\n".join(map(json.dumps, rows)))
    assert [record.cells for record in found] == rows
    assert [record.number for record in found] == [1, 3]


def test_parquet_cells_are_converted_to_json(tmp_path: Path) -> None:
    moment = datetime.datetime(2026, 3, 1, 12, 30)
    columns: dict[str, Any] = {
        "text": pa.array(["a", "b", "c"]),
        "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
        "n": pa.array([1, None, 3]),
        "share": pa.array([0.5, float("nan"), float("inf")]),
        "at": pa.array([moment] * 3, pa.timestamp("us")),
        "price": pa.array([decimal.Decimal("1.20")] * 3),
        "many": pa.array([[1, 2], [], None]),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=2)
    found = list(files.iter_whole_rows(tmp_path / "a.parquet", "text"))
    assert [record.number for record in found] == [1, 2, 3]
    fixed = {"at": "2026-03-01 12:30:00", "price": "1.20"}
    assert [record.cells for record in found] == [
        {"text": "a", "kind": "x", "n": 1, "share": 0.5, "many": [1, 2], **fixed},
        {"text": "b", "kind": "y", "n": None, "share": None, "many": [], **fixed},
        {"text": "c", "kind": "x", "n": 3, "share": None, "many": None, **fixed},
    ]


BAD: list[tuple[str, str | bytes, type[LoraCoreError], dict[str, object]]] = [
    ("a.csv", "text\n", EmptyData, {}),
    ("a.csv", "\n", EmptyData, {}),
    ("a.jsonl", "\n", EmptyData, {}),
    ("a.csv", "body\na\n", MissingColumn, {"column": "text"}),
    ("a.csv", "text,n,n\na,1,2\n", MalformedRow, {"row": 0}),
    ("a.csv", "text,n\na\n", MalformedRow, {"row": 1}),
    ("a.csv", "text,n\na,1\n ,2\n", MissingText, {"rows": 2}),
    ("a.csv", b"text\na\n\x81\n", UndecodableText, {"row": 2}),
    ("a.csv", "text,predicted_label\na,b\n", ReservedColumn, {"column": "predicted_label"}),
    ("a.csv", "text,predicted_scores.good\na,1\n", ReservedColumn, {}),
    ("a.csv", "text,s.predicted_label\na,b\n", ReservedColumn, {"column": "s.predicted_label"}),
    ("a.csv", "text,s.predicted_scores.v1.5\na,1\n", ReservedColumn, {}),
    ("a.csv", ",".join(["text", *map(str, range(512))]) + "\n", DataTooLarge, {}),
    ("a.jsonl", '{"text": "a"}\n{"n": 1}\n', MalformedRow, {"row": 2}),
    ("a.jsonl", '{"text": "a"}\n{"text": null}\n', MissingText, {"rows": 2}),
    ("a.jsonl", '{"text": "a"}\n{"text": 3}\n', MalformedRow, {"row": 2}),
    ("a.jsonl", '{"text": "a", "n": 1e999}\n', MalformedRow, {"row": 1}),
    ("a.jsonl", '{"text": "a", "n": "\\ud800"}\n', MalformedRow, {"row": 1}),
    ("a.jsonl", '{"text": "a"}\n{"text": "b", "predicted_score": 1}\n', ReservedColumn, {}),
]


@pytest.mark.parametrize(("name", "content", "error", "detail"), BAD)
def test_unpredictable_row_is_reported(
    tmp_path: Path,
    name: str,
    content: str | bytes,
    error: type[LoraCoreError],
    detail: dict[str, object],
) -> None:
    with pytest.raises(error) as refused:
        read(tmp_path / name, content)
    assert detail.items() <= refused.value.detail.items()


def test_binary_parquet_column_is_refused(tmp_path: Path) -> None:
    columns = {"text": pa.array(["a", "b"]), "image": pa.array([None, b"\xff"])}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(MalformedRow, match="row 2: a cell contains bytes"):
        list(files.iter_whole_rows(tmp_path / "a.parquet", "text"))


def test_column_limit_counts_names_of_all_objects(tmp_path: Path) -> None:
    lines = [json.dumps({"text": "a", f"n{i}": i}) for i in range(513)]
    with pytest.raises(DataTooLarge, match="512; delete columns that are not needed"):
        read(tmp_path / "a.jsonl", "\n".join(lines))
