import subprocess
import sys
from pathlib import Path

import pytest

from lora_core.data import contents
from lora_core.data.profile import Profile, describe
from lora_core.data.rows import Columns
from lora_core.errors.data import MissingColumn, MissingSplit, OneClass, UnseenLabel
from lora_core.specs.data import Split


def inspect(
    path: Path, text: str = "text", label: str = "label", split: str | None = None
) -> Profile:
    return describe(contents.read(path, Columns(text, label, split)))


def write(tmp_path: Path, *rows: str, header: str = "text,label") -> Path:
    path = tmp_path / "reviews.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_file_is_described(tmp_path: Path) -> None:
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


def test_labels_that_differ_in_case_or_white_space_only_are_found(tmp_path: Path) -> None:
    profile = inspect(
        write(tmp_path, "a,Lob", "b,lob", "c,LOB", "d,No go", "e,STRASSE", "f,Straße", "g,no  go")
    )
    assert profile.similar_labels == (
        ("LOB", "Lob", "lob"),
        ("No go", "no  go"),
        ("STRASSE", "Straße"),
    )


def test_texts_without_labels_are_described(tmp_path: Path) -> None:
    path = write(tmp_path, "1,good,train", "2,bad,x", "3, good ,", header="id,body,split")
    profile = describe(contents.read(path, Columns("body", label=None)))
    assert (profile.rows, profile.duplicates, profile.max_characters) == (3, 1, 6)
    assert (profile.label_column, profile.split_column, profile.labels) == (None, None, {})


def test_given_parts_are_counted_and_so_is_what_leaks(tmp_path: Path) -> None:
    rows = ["a,1,train", "b,0,train", "a,1,test", "c,0,valid"]
    profile = inspect(write(tmp_path, *rows, header="text,label,split"))
    assert profile.split_column == "split"
    assert profile.splits == {Split.TRAIN: 2, Split.VALIDATION: 1, Split.TEST: 1}
    assert profile.leaked == 1


def test_columns_may_have_any_name(tmp_path: Path) -> None:
    path = write(tmp_path, "1,a,train", "0,b,train", header="stars,review,part")
    profile = inspect(path, "review", "stars", "part")
    assert (profile.text_column, profile.label_column, profile.split_column) == (
        "review",
        "stars",
        "part",
    )
    with pytest.raises(MissingColumn, match="Columns: stars, review, part"):
        inspect(path)


def test_what_training_would_refuse_is_refused_here(tmp_path: Path) -> None:
    with pytest.raises(OneClass):
        inspect(write(tmp_path, "a,1", "b,1"))
    header = "text,label,split"
    with pytest.raises(UnseenLabel):
        inspect(write(tmp_path, "a,1,train", "b,0,train", "c,2,test", header=header))
    with pytest.raises(MissingSplit):
        inspect(write(tmp_path, "a,1,test", "b,0,test", header=header))


def test_an_inspection_loads_neither_torch_nor_datasets() -> None:
    code = (
        "import sys, lora_core.data.profile, lora_core.data.checks, lora_core.data.preview;"
        "print(sorted({'torch', 'transformers', 'datasets', 'pandas'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert answer.stdout.strip() == b"[]"
