from pathlib import Path

import pytest

from lora_core.cache import cache_dir
from lora_core.data.load import load_splits
from lora_core.errors.data import SingleClass, TooFewRows, UnseenLabel
from lora_core.samples import reviews
from lora_core.specs.data import DataSpec, Split


def write(path: Path, *rows: str, header: str = "text,label") -> str:
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def numbered(n: int, labels: str = "np") -> list[str]:
    return [f"text {i},{labels[i % len(labels)]}" for i in range(n)]


def sizes(spec: DataSpec) -> tuple[int, int, int]:
    found = load_splits(spec)
    return len(found.train), len(found.validation), len(found.test)


def test_default_data_is_split_as_specified() -> None:
    spec = DataSpec(train_size=4000, validation_size=500, test_size=2000)
    splits = load_splits(spec)
    assert splits.labels == ("negative", "positive")
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (4000, 500, 2000)
    assert sum(example.label for example in splits.test) == 1000
    assert splits.leaked == 0
    assert load_splits(spec).digest == splits.digest
    assert load_splits(spec.model_copy(update={"split_seed": 1})).digest != splits.digest


def test_splits_of_a_sample_are_read_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = DataSpec(train_size=300, validation_size=50, test_size=100)
    splits = load_splits(spec)
    directory = cache_dir() / "splits"
    for entry in directory.iterdir():
        entry.write_bytes(entry.read_bytes()[:-10])  # a damaged entry is replaced
    assert load_splits(spec) == splits

    def fail(_: str) -> None:
        raise AssertionError

    monkeypatch.setattr(reviews, "load_reviews", fail)
    assert load_splits(spec) == splits
    with pytest.raises(AssertionError):
        load_splits(spec.model_copy(update={"split_seed": 1}))


def test_texts_of_users_are_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAWORKS_CACHE", str(tmp_path / "cache"))
    load_splits(DataSpec(source=write(tmp_path / "f.csv", *numbered(100))))
    assert not (tmp_path / "cache").exists()


def test_shares_refer_to_all_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", *numbered(100))
    assert sizes(DataSpec(source=path)) == (70, 10, 20)
    assert sizes(DataSpec(source=path, train_size=0.5, test_size=30)) == (50, 10, 30)
    with pytest.raises(TooFewRows):
        load_splits(DataSpec(source=path, train_size=0.8))


def test_given_splits_are_kept_and_missing_ones_are_drawn(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", *numbered(100))
    test = write(tmp_path / "test.csv", "z,p", "y,n", "x,p")
    splits = load_splits(DataSpec(source={Split.TRAIN: train, Split.TEST: test}, train_size=20))
    assert [example.text for example in splits.test] == ["z", "y", "x"]
    assert [example.row for example in splits.test] == [1, 2, 3]
    assert (len(splits.train), len(splits.validation)) == (20, 10)


def test_given_splits_keep_row_order(tmp_path: Path) -> None:
    rows = ["a,1,train", "b,0,train", "c,1,test", "a,0,val", "d,1,train"]
    path = write(tmp_path / "f.csv", *rows, header="text,label,split")
    splits = load_splits(DataSpec(source=path))
    assert [(e.row, e.text, e.label) for e in splits.train] == [
        (1, "a", 1),
        (2, "b", 0),
        (5, "d", 1),
    ]
    assert [e.row for e in splits.validation] == [4]
    assert splits.labels == ("0", "1")


def test_leaked_texts_are_counted(tmp_path: Path) -> None:
    rows = ["a,1,train", "b,0,train", " a ,1,test", "c,0,test", "b,1,val"]
    path = write(tmp_path / "f.csv", *rows, header="text,label,split")
    assert load_splits(DataSpec(source=path)).leaked == 2


def test_one_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SingleClass, match="only the label 'p'"):
        load_splits(DataSpec(source=write(tmp_path / "f.csv", *numbered(20, "p"))))


def test_unseen_label_is_refused(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", *numbered(100))
    test = write(tmp_path / "test.csv", "z,p", "y,neutral")
    with pytest.raises(UnseenLabel, match=r"'neutral' occurs in the test split \(rows 2\)"):
        load_splits(DataSpec(source={Split.TRAIN: train, Split.TEST: test}))


def test_columns_are_selected_by_name(tmp_path: Path) -> None:
    rows = [f"{i},{i % 2},review {i}" for i in range(40)]
    path = write(tmp_path / "f.csv", *rows, header="text,stars,body")
    splits = load_splits(DataSpec(source=path, text_column="body", label_column="stars"))
    assert splits.train[0].text.startswith("review ")
    assert splits.labels == ("0", "1")


def test_splits_are_stratified(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", *numbered(600, "aaabbc"))
    splits = load_splits(DataSpec(source=path))
    for part in (splits.train, splits.validation, splits.test):
        share = [sum(example.label == i for example in part) / len(part) for i in range(3)]
        assert share == pytest.approx([1 / 2, 1 / 3, 1 / 6], abs=0.02)
