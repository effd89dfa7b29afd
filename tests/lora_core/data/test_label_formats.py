"""Labels as cells give them: sets of names and numbers, in every file format."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import Workbook

from lora_core.data.files import read_rows
from lora_core.data.label_readers import LabelFormat, build_label_reader
from lora_core.data.load import load_splits
from lora_core.data.rows import ColumnSelection, collect_rows
from lora_core.data.split import sort_label_names
from lora_core.errors import LoraCoreError
from lora_core.errors.data import (
    AllLabelSetsEmpty,
    ConstantLabelSets,
    ConstantNumbers,
    DataError,
    DataTooLarge,
    DecimalComma,
    EmptyLabelInSet,
    LabelNotBinary,
    LabelNotNumber,
    LabelWithoutPositives,
    MalformedLabelSet,
    MalformedRow,
    MissingColumn,
    MissingLabel,
    UnseenLabel,
)
from lora_core.specs.data import DataSpec, Split
from lora_core.specs.encoded_labels import decode_label_set, encode_label_set
from lora_core.specs.task import MultiLabelSpec, RegressionSpec, SingleLabelSpec, TaskSpec

SETS = LabelFormat("multi_label")
SEPARATED = LabelFormat("multi_label", separator=";")
COLUMNS = LabelFormat("multi_label", columns=("spam", "toxic"))
NUMBERS = LabelFormat("regression")


def write(path: Path, columns: dict[str, Sequence[Any]]) -> Path:
    """Write columns to a file of any format; a list becomes JSON where cells are text."""
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    if path.suffix == ".parquet":
        pq.write_table(pa.table({name: list(cells) for name, cells in columns.items()}), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    else:
        table = [list(columns), *([as_cell(row[name]) for name in columns] for row in rows)]
        if path.suffix == ".xlsx":
            workbook = Workbook()
            sheet: Any = workbook.active
            for line in table:
                sheet.append(line)
            workbook.save(path)
        else:
            with path.open("w", newline="") as file:
                csv.writer(file).writerows(table)
    return path


def as_cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list) else value


def labels(path: Path, label_format: LabelFormat) -> list[str]:
    return [row.label for row in read_rows(path, ColumnSelection(label_format=label_format))]


@pytest.mark.parametrize("suffix", [".csv", ".xlsx", ".jsonl", ".parquet"])
def test_every_format_holds_every_kind_of_label(tmp_path: Path, suffix: str) -> None:
    texts = ["a", "b", "c"]
    path = write(
        tmp_path / f"f{suffix}",
        {
            "text": texts,
            "label": [["toxic", "spam"], [], ["spam"]],
            "split": ["train", "test", "train"],
        },
    )
    expected = ['["spam", "toxic"]', "[]", '["spam"]']
    assert labels(path, SETS) == expected
    path = write(tmp_path / f"f{suffix}", {"text": texts, "label": ["toxic; spam", "", "spam"]})
    assert labels(path, SEPARATED) == expected
    path = write(
        tmp_path / f"f{suffix}",
        {"text": texts, "toxic": [1, 0, 0], "spam": [True, False, True], "split": ["test"] * 3},
    )
    assert labels(path, COLUMNS) == expected
    path = write(tmp_path / f"f{suffix}", {"text": texts, "label": [1.5, 2.0, -3.0]})
    assert labels(path, NUMBERS) == ["1.5", "2.0", "-3.0"]


@pytest.mark.parametrize(
    ("label_format", "cells", "label"),
    [
        (SETS, [["b", "a", "b "]], '["a", "b"]'),
        (SETS, [[True, 3, "x"]], '["3", "true", "x"]'),
        (SETS, ['["e\u0301"]'], '["\u00e9"]'),
        (SETS, [["a\r\nb", "a b"]], '["a b"]'),
        (SETS, [None], ""),
        (SETS, [" "], ""),
        (SEPARATED, [["a;b"]], '["a;b"]'),
        (SEPARATED, [" a ;b"], '["a", "b"]'),
        (SEPARATED, [None], ""),
        (LabelFormat(), ["Refund\nrequest\t"], "Refund request"),
        (LabelFormat("multi_label", columns=("Late\nagain",)), ["1"], '["Late again"]'),
        (COLUMNS, ["True", 0.0], '["spam"]'),
        (COLUMNS, ["1.0", " 1 "], '["spam", "toxic"]'),
        (COLUMNS, [0, None], ""),
        (COLUMNS, ["0", " "], ""),
        (NUMBERS, [" -1.50 "], "-1.5"),
        (NUMBERS, [3], "3.0"),
        (NUMBERS, ["+.5e3"], "500.0"),
        (NUMBERS, [-0.0], "0.0"),
        (NUMBERS, [None], ""),
    ],
)
def test_cells_become_labels(label_format: LabelFormat, cells: list[object], label: str) -> None:
    reader = build_label_reader("f", label_format)
    assert reader.read(1, cells) == label
    reader.raise_for_invalid_rows()


@pytest.mark.parametrize(
    ("label_format", "cells", "error", "message"),
    [
        (SETS, ["spam"], MalformedLabelSet, "row 7: 'spam' is no JSON list"),
        (SETS, ["['a', 'b']"], MalformedLabelSet, "is no JSON list"),
        (SETS, ['{"a": 1}'], MalformedLabelSet, "is no JSON list"),
        (SETS, ["[" * 100_000], MalformedLabelSet, "is no JSON list"),
        (SETS, [3], MalformedLabelSet, "the label is a int"),
        (SETS, [[1.5]], MalformedLabelSet, "a float in the list"),
        (SETS, [[["a"]]], MalformedLabelSet, "a list in the list"),
        (SETS, [["a", None]], EmptyLabelInSet, "row 7: one of its labels is empty"),
        (SETS, [["a", " "]], EmptyLabelInSet, "empty"),
        (SEPARATED, ["a;;b"], EmptyLabelInSet, "empty"),
        (SEPARATED, ["a;;"], EmptyLabelInSet, "empty"),
        (SEPARATED, [";a"], EmptyLabelInSet, "empty"),
        (SEPARATED, [";"], EmptyLabelInSet, "empty"),
        (SETS, [["a" * 257]], DataTooLarge, "256 characters"),
        (SETS, [list(map(str, range(1001)))], DataTooLarge, "different labels"),
        (SETS, [["\ud800"]], MalformedRow, "lone surrogate"),
        (COLUMNS, [2, 0], LabelNotBinary, "column 'spam' has '2'"),
        (COLUMNS, [0, "yes"], LabelNotBinary, "column 'toxic' has 'yes'"),
        (COLUMNS, [0, 0.5], LabelNotBinary, "'0.5'"),
        (NUMBERS, ["good"], LabelNotNumber, "1 of 1 .*'good'"),
        (NUMBERS, ["85%"], LabelNotNumber, "'85%'.*for 85%, write 0.85 or 85"),
        (NUMBERS, ["8,5 %"], LabelNotNumber, "write 0.85 or 85"),
        (NUMBERS, [True], LabelNotNumber, "True"),
        (NUMBERS, [math.nan], LabelNotNumber, "nan"),
        (NUMBERS, ["inf"], LabelNotNumber, "inf"),
        (NUMBERS, ["1e31"], LabelNotNumber, "1e31"),
        (NUMBERS, ["1_000"], LabelNotNumber, "1_000"),
        (NUMBERS, ["\u0663"], LabelNotNumber, "\u0663"),
        (NUMBERS, [[1.0]], LabelNotNumber, "1.0"),
        (NUMBERS, ["3,5"], DecimalComma, "rows: 7; the first is '3,5'"),
        (NUMBERS, ["1.234,5"], DecimalComma, "decimal point"),
        (NUMBERS, ["1,234.5"], DecimalComma, "thousands separators"),
    ],
)
def test_bad_cells_are_refused(
    label_format: LabelFormat, cells: list[object], error: type[DataError], message: str
) -> None:
    columns = ColumnSelection(label_format=label_format)
    with pytest.raises(error, match=message):
        collect_rows("f", iter([(7, ["text", *cells])]), columns)


def test_a_column_that_is_half_numbers_is_refused_as_a_whole(tmp_path: Path) -> None:
    cells = ["1.5", "good"] * 12 + ["2,5"]
    path = write(tmp_path / "f.csv", {"text": list(map(str, range(25))), "label": cells})
    with pytest.raises(LabelNotNumber) as refused:
        labels(path, NUMBERS)
    assert refused.value.detail["count"] == "13"
    assert refused.value.detail["of"] == "25"
    assert refused.value.detail["rows"] == "2, 4, 6, 8, 10, 12, 14, 16, 18, 20"


@pytest.mark.parametrize(
    "label_format", [SETS, COLUMNS, NUMBERS], ids=["sets", "columns", "numbers"]
)
def test_missing_cells_are_listed(tmp_path: Path, label_format: LabelFormat) -> None:
    columns = {name: ["", "0", ""] for name in label_format.columns or ["label"]}
    if label_format is SETS:
        columns["label"][1] = "[]"
    path = write(tmp_path / "f.csv", {"text": ["a", "b", "c"], **columns})
    with pytest.raises(MissingLabel, match=r"2 \(first: 1, 3\)"):
        labels(path, label_format)


def test_a_json_object_without_the_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text('{"text": "a", "label": []}\n{"text": "b"}\n')
    with pytest.raises(MalformedRow, match="no field 'label'"):
        labels(path, SETS)


@pytest.mark.parametrize(
    ("cells", "label_format", "message"),
    [
        (pa.array([[1.5]]), SETS, "not a list of strings, integers or bools"),
        (pa.array([1]), SETS, "not a list of strings"),
        (pa.array([["a"]]), NUMBERS, "not integer, float, bool or string"),
        (pa.array([["a"]]), LabelFormat(), "not string, integer or bool"),
        (
            pa.array([1.0]),
            LabelFormat(),
            "string, integer or bool; convert it to integers or strings, or use --task regression",
        ),
    ],
)
def test_parquet_types_must_fit_the_task(
    tmp_path: Path, cells: pa.Array, label_format: LabelFormat, message: str
) -> None:
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"text": ["a"], "label": cells}), path)
    with pytest.raises(MalformedRow, match=message):
        labels(path, label_format)


def test_parquet_lists_are_read_by_row_and_limited(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    cells = pa.array([["a"], None, [], ["b", "c" * 4_000_001]], pa.large_list(pa.string()))
    pq.write_table(pa.table({"text": list("wxyz"), "label": cells}), path)
    with pytest.raises(DataTooLarge, match="row 4"):
        labels(path, SETS)
    encoded = pa.array([["b", "a"], []], pa.list_(pa.dictionary(pa.int32(), pa.string())))
    pq.write_table(pa.table({"text": ["x", "y"], "label": encoded}), path)
    assert labels(path, SETS) == ['["a", "b"]', "[]"]


@given(st.lists(st.text(min_size=1)))
def test_label_sets_survive_encoding(names: list[str]) -> None:
    encoded = encode_label_set(names)
    assert encoded == encode_label_set(reversed(names))
    assert decode_label_set(encoded) == tuple(sorted(set(names)))


def test_ranks_are_sorted_by_value() -> None:
    assert sort_label_names(["4.5", "10", "5"], ordered=True) == ("4.5", "5", "10")
    assert sort_label_names(["4.5", "10", "5"]) == ("10", "4.5", "5")
    assert sort_label_names(["low", "high"], ordered=True) == ("high", "low")


# -- Splits ---------------------------------------------------------------------------------------


def test_splits_have_the_targets_of_their_task(tmp_path: Path) -> None:
    split = ["train", "train", "validation", "test"]
    texts = list("abcd")
    path = write(
        tmp_path / "f.csv", {"text": texts, "label": ["10;9", "", "9", "10"], "split": split}
    )
    data = DataSpec(source=str(path), label_separator=";")
    splits = load_splits(data, MultiLabelSpec())
    assert splits.labels == ("9", "10")
    assert [each.label for each in splits.train] == [(0, 1), ()]
    assert [each.label for each in splits.test] == [(1,)]
    path = write(
        tmp_path / "f.csv", {"text": texts, "label": ["4.5", "10", "10", "4.5"], "split": split}
    )
    assert load_splits(DataSpec(source=str(path)), SingleLabelSpec(ordered=True)).labels == (
        "4.5",
        "10",
    )
    splits = load_splits(DataSpec(source=str(path)), RegressionSpec())
    assert splits.labels == ()
    assert [each.label for each in splits.train] == [4.5, 10.0]


@pytest.mark.parametrize(
    ("cells", "task", "error"),
    [
        (["[]", "[]", '["a"]', "[]"], MultiLabelSpec(), AllLabelSetsEmpty),
        (['["a", "b"]'] * 2 + ["[]"] * 2, MultiLabelSpec(), ConstantLabelSets),
        (['["a"]', "[]", "[]", '["c"]'], MultiLabelSpec(), UnseenLabel),
        (["2", "2.0", "1", "3"], RegressionSpec(), ConstantNumbers),
    ],
)
def test_nothing_to_learn_is_an_error(
    tmp_path: Path, cells: list[str], task: TaskSpec, error: type[LoraCoreError]
) -> None:
    split = ["train", "train", "validation", "test"]
    path = write(tmp_path / "f.csv", {"text": list("abcd"), "label": cells, "split": split})
    with pytest.raises(error):
        load_splits(DataSpec(source=str(path)), task)


def test_every_label_column_needs_a_positive(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", {"text": list("abcd"), "x": [0, 1, 0, 1], "y": [0, 0, 0, 0]})
    data = DataSpec(source=str(path), label_columns=("x", "y"), test_size=1, validation_size=1)
    with pytest.raises(LabelWithoutPositives, match="'y' is 0 in all"):
        load_splits(data, MultiLabelSpec())


def test_a_missing_label_column_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", {"text": list("abcd"), "x": [0, 1, 0, 1]})
    data = DataSpec(source=str(path), label_columns=("x", "y"))
    with pytest.raises(MissingColumn, match=r"no column 'y'.*`--label-columns`"):
        load_splits(data, MultiLabelSpec())


def test_samples_have_names_only() -> None:
    with pytest.raises(LabelNotNumber, match="8,530 of 8,530"):
        load_splits(DataSpec(), RegressionSpec())
    splits = load_splits(
        DataSpec(label_separator=";", train_size=90, validation_size=10, test_size=20),
        MultiLabelSpec(),
    )
    assert splits.labels == ("negative", "positive")
    assert sorted(each.label for each in splits.test) == [(0,)] * 10 + [(1,)] * 10
    with pytest.raises(DataError, match="no column 'x'"):
        load_splits(DataSpec(source={Split.TRAIN: "imdb"}, label_columns=("x",)), MultiLabelSpec())


def test_answers_of_chats_are_sets_and_numbers(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    answers = [json.dumps([f"label {i}", "x" * 90]) for i in range(12)] + ["[]"]
    path.write_text(
        "".join(
            json.dumps({"prompt": f"text {i}", "completion": each}) + "\n"
            for i, each in enumerate(answers)
        )
    )
    assert labels(path, SETS)[0] == encode_label_set(["label 0", "x" * 90])
    path.write_text(
        "".join(
            json.dumps({"prompt": f"text {i}", "completion": f'{{"stars": {i}.5}}'}) + "\n"
            for i in range(12)
        )
    )
    assert labels(path, NUMBERS)[:2] == ["0.5", "1.5"]
