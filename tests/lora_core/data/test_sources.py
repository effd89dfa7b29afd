from collections.abc import Mapping
from pathlib import Path

import pytest

from lora_core.data.load import read_source
from lora_core.data.rows import ColumnSelection
from lora_core.errors.data import DataNotFound, InvalidSplitValue, MissingColumn, MissingSplit
from lora_core.specs.data import Split


def write(path: Path, *rows: str, header: str = "text,label") -> str:
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def texts(
    source: str | Mapping[Split, str], columns: ColumnSelection | None = None
) -> dict[str, list[str]]:
    found = read_source(source, columns or ColumnSelection())
    return {part.value: [row.text for row in rows] for part, rows in found.items()}


def test_sample_is_all_train() -> None:
    found = read_source("rotten-tomatoes", ColumnSelection())
    assert list(found) == [Split.TRAIN]
    assert (len(found[Split.TRAIN]), found[Split.TRAIN][0].number) == (8530, 1)


@pytest.mark.parametrize(
    "columns",
    [ColumnSelection(text="review"), ColumnSelection(label="stars"), ColumnSelection(split="part")],
)
def test_sample_has_fixed_columns(columns: ColumnSelection) -> None:
    with pytest.raises(MissingColumn, match="Columns: text, label"):
        read_source("rotten-tomatoes", columns)


def test_split_names_are_case_insensitive(tmp_path: Path) -> None:
    rows = ["a,1,Train", "b,0,TEST", "c,1,valid", "d,0, dev ", "e,1,val", "f,0,validation"]
    path = write(tmp_path / "f.csv", *rows, header="text,label,split")
    assert texts(path) == {"train": ["a"], "test": ["b"], "validation": ["c", "d", "e", "f"]}


def test_split_column_name_is_configurable(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "a,1,train,x", "b,0,test,y", header="text,label,part,split")
    columns = ColumnSelection(split="part")
    assert texts(path, columns) == {"train": ["a"], "test": ["b"]}
    with pytest.raises(InvalidSplitValue, match="row 1: split 'x'"):
        read_source(path, ColumnSelection())
    with pytest.raises(MissingColumn, match="'fold'"):
        read_source(path, ColumnSelection(split="fold"))


@pytest.mark.parametrize("value", ["", "holdout", "training set"])
def test_unknown_split_value_is_refused(tmp_path: Path, value: str) -> None:
    path = write(tmp_path / "f.csv", "a,1,train", f"b,0,{value}", header="text,label,split")
    with pytest.raises(InvalidSplitValue, match=f"row 2: split '{value}'") as raised:
        read_source(path, ColumnSelection())
    assert "train, validation (or valid, val, dev) and test" in str(raised.value)
    assert "If the column is something else, rename it." in str(raised.value)


def test_train_split_is_required(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "a,1,test", header="text,label,split")
    with pytest.raises(MissingSplit, match="no train split"):
        read_source(path, ColumnSelection())
    with pytest.raises(MissingSplit, match="no train split"):
        read_source({Split.TEST: path}, ColumnSelection())


def test_one_file_per_split(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", "a,1,fold 7", "b,0,fold 8", header="text,label,split")
    test = tmp_path / "test.jsonl"
    test.write_text('{"text": "c", "label": 1}\n')
    source = {Split.TRAIN: train, Split.TEST: str(test)}
    assert texts(source) == {"train": ["a", "b"], "test": ["c"]}


def test_split_column_filters_files_per_split(tmp_path: Path) -> None:
    both = write(tmp_path / "both.csv", "a,1,train", "b,0,test", header="text,label,part")
    source = {Split.TRAIN: both, Split.TEST: both}
    assert texts(source, ColumnSelection(split="part")) == {"train": ["a"], "test": ["b"]}
    with pytest.raises(MissingSplit, match="no validation split"):
        read_source({**source, Split.VALIDATION: both}, ColumnSelection(split="part"))


def test_unknown_source_error_lists_samples() -> None:
    with pytest.raises(DataNotFound, match=r"rotten-potatoes.*samples are rotten-tomatoes, imdb"):
        read_source("rotten-potatoes", ColumnSelection())
