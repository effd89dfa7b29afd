import subprocess
import sys
from pathlib import Path

import pytest

from lora_core.data import file_inspection
from lora_core.data.file_inspection import DatasetProfile, build_profile
from lora_core.data.rows import ColumnSelection
from lora_core.errors.data import MissingColumn, MissingSplit, SingleClass, UnseenLabel
from lora_core.specs.data import Split


def inspect(
    path: Path, text: str = "text", label: str = "label", split: str | None = None
) -> DatasetProfile:
    return build_profile(file_inspection.read_contents(path, ColumnSelection(text, label, split)))


def write(tmp_path: Path, *rows: str, header: str = "text,label") -> Path:
    path = tmp_path / "reviews.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_describe(tmp_path: Path) -> None:
    path = write(tmp_path, "good,10", "bad,9", " good ,10", "bad,10", "fine,9")
    profile = inspect(path)
    assert profile.model_dump() == {
        "rows": 5,
        "text_column": "text",
        "label_column": "label",
        "split_column": None,
        "labels": {"9": 2, "10": 3},
        "similar_labels": (),
        "splits": {},
        "duplicates": 2,
        "conflicting_duplicates": 1,
        "leaked": 0,
        "mean_characters": 4.0,
        "max_characters": 6,
        "encoding": "UTF-8",
        "separator": ",",
        "sheet": None,
        "blank_rows": 0,
    }
    assert list(profile.labels) == ["9", "10"]


def test_similar_labels(tmp_path: Path) -> None:
    profile = inspect(
        write(tmp_path, "a,Lob", "b,lob", "c,LOB", "d,No go", "e,STRASSE", "f,Straße", "g,no  go")
    )
    assert profile.similar_labels == (
        ("LOB", "Lob", "lob"),
        ("No go", "no  go"),
        ("STRASSE", "Straße"),
    )


def test_labels_that_look_the_same_are_similar(tmp_path: Path) -> None:
    invisible = inspect(write(tmp_path, "a,Lob\u200b", "b,lob", "c,\ufeffno", "d,no", "e,yes"))
    assert invisible.similar_labels == (("Lob\u200b", "lob"), ("no", "\ufeffno"))
    numbers = (
        "a,1",
        "b,1.0",
        "c,+1.00",
        "d,2.0",
        "e,2.5",
        "f,2.50",
        "g,-0",
        "h,0",
        "i,v1",
        "j,v1.0",
    )
    assert inspect(write(tmp_path, *numbers)).similar_labels == (("+1.00", "1", "1.0"), ("-0", "0"))
    names = inspect(write(tmp_path, "a,NA", "b,nan", "c,null", "d,None", "e,N/A"))
    assert names.similar_labels == ()
    assert list(names.labels) == ["N/A", "NA", "None", "nan", "null"]


def test_profile_of_unlabeled_texts(tmp_path: Path) -> None:
    path = write(tmp_path, "1,good,train", "2,bad,x", "3, good ,", header="id,body,split")
    profile = build_profile(
        file_inspection.read_contents(path, ColumnSelection("body", label=None))
    )
    assert (profile.rows, profile.duplicates, profile.max_characters) == (3, 1, 6)
    assert (profile.label_column, profile.split_column, profile.labels) == (None, None, {})


def test_splits_and_leaked_rows_are_counted(tmp_path: Path) -> None:
    rows = ["a,1,train", "b,0,train", "a,1,test", "c,0,valid"]
    profile = inspect(write(tmp_path, *rows, header="text,label,split"))
    assert profile.split_column == "split"
    assert profile.splits == {Split.TRAIN: 2, Split.VALIDATION: 1, Split.TEST: 1}
    assert profile.leaked == 1


def test_column_names_are_configurable(tmp_path: Path) -> None:
    path = write(tmp_path, "1,a,train", "0,b,train", header="stars,review,part")
    profile = inspect(path, "review", "stars", "part")
    assert (profile.text_column, profile.label_column, profile.split_column) == (
        "review",
        "stars",
        "part",
    )
    with pytest.raises(MissingColumn, match="Columns: stars, review, part"):
        inspect(path)


def test_data_that_training_refuses_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SingleClass):
        inspect(write(tmp_path, "a,1", "b,1"))
    header = "text,label,split"
    with pytest.raises(UnseenLabel):
        inspect(write(tmp_path, "a,1,train", "b,0,train", "c,2,test", header=header))
    with pytest.raises(MissingSplit):
        inspect(write(tmp_path, "a,1,test", "b,0,test", header=header))


def test_inspection_does_not_import_torch_or_datasets() -> None:
    code = (
        "import sys, lora_core.data.checks, lora_core.data.file_inspection;"
        "print(sorted({'torch', 'transformers', 'datasets', 'pandas'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert answer.stdout.strip() == b"[]"
