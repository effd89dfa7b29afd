from collections.abc import Mapping
from pathlib import Path

import pytest

from lora_core.data.load import read
from lora_core.data.rows import Columns
from lora_core.errors.data import DataNotFound, MissingColumn, MissingSplit, UnknownSplit
from lora_core.specs.data import Split


def write(path: Path, *rows: str, header: str = "text,label") -> str:
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def texts(
    source: str | Mapping[Split, str], columns: Columns | None = None
) -> dict[str, list[str]]:
    found = read(source, columns or Columns())
    return {part.value: [row.text for row in rows] for part, rows in found.items()}


def test_a_sample_is_one_undivided_part() -> None:
    found = read("rotten-tomatoes", Columns())
    assert list(found) == [Split.TRAIN]
    assert (len(found[Split.TRAIN]), found[Split.TRAIN][0].number) == (8530, 1)


@pytest.mark.parametrize(
    "columns", [Columns(text="review"), Columns(label="stars"), Columns(split="part")]
)
def test_a_sample_has_no_other_columns(columns: Columns) -> None:
    with pytest.raises(MissingColumn, match="Columns: text, label"):
        read("rotten-tomatoes", columns)


def test_a_split_column_divides_whatever_its_spelling(tmp_path: Path) -> None:
    rows = ["a,1,Train", "b,0,TEST", "c,1,valid", "d,0, dev ", "e,1,val", "f,0,validation"]
    path = write(tmp_path / "f.csv", *rows, header="text,label,split")
    assert texts(path) == {"train": ["a"], "test": ["b"], "validation": ["c", "d", "e", "f"]}


def test_a_split_column_may_have_another_name(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "a,1,train,x", "b,0,test,y", header="text,label,part,split")
    columns = Columns(split="part")
    assert texts(path, columns) == {"train": ["a"], "test": ["b"]}
    with pytest.raises(UnknownSplit, match="row 1: split 'x'"):
        read(path, Columns())
    with pytest.raises(MissingColumn, match="'fold'"):
        read(path, Columns(split="fold"))


@pytest.mark.parametrize("value", ["", "holdout", "training set"])
def test_a_value_that_names_no_part_is_refused(tmp_path: Path, value: str) -> None:
    path = write(tmp_path / "f.csv", "a,1,train", f"b,0,{value}", header="text,label,split")
    with pytest.raises(UnknownSplit, match=f"row 2: split '{value}'"):
        read(path, Columns())


def test_without_a_train_part_there_is_nothing_to_train_on(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "a,1,test", header="text,label,split")
    with pytest.raises(MissingSplit, match="no train part"):
        read(path, Columns())
    with pytest.raises(MissingSplit, match="no train part"):
        read({Split.TEST: path}, Columns())


def test_each_part_may_be_a_file_of_its_own(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", "a,1,fold 7", "b,0,fold 8", header="text,label,split")
    test = tmp_path / "test.jsonl"
    test.write_text('{"text": "c", "label": 1}\n')
    source = {Split.TRAIN: train, Split.TEST: str(test)}
    assert texts(source) == {"train": ["a", "b"], "test": ["c"]}


def test_of_a_file_that_names_parts_each_part_takes_its_own(tmp_path: Path) -> None:
    both = write(tmp_path / "both.csv", "a,1,train", "b,0,test", header="text,label,part")
    source = {Split.TRAIN: both, Split.TEST: both}
    assert texts(source, Columns(split="part")) == {"train": ["a"], "test": ["b"]}
    with pytest.raises(MissingSplit, match="no validation part"):
        read({**source, Split.VALIDATION: both}, Columns(split="part"))


def test_what_is_nowhere_is_named_with_the_samples() -> None:
    with pytest.raises(DataNotFound, match=r"rotten-potatoes.*samples are rotten-tomatoes, imdb"):
        read("rotten-potatoes", Columns())
