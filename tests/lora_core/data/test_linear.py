from pathlib import Path

import pytest

from lora_core.data import linear_baseline
from lora_core.data.load import load
from lora_core.data.records import Example, Splits
from lora_core.specs.data import DataSpec


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORAWORKS_CACHE", str(tmp_path))
    return tmp_path / "linear"


def examples(*texts: str) -> tuple[Example, ...]:
    return tuple(Example(i, text, i % 2) for i, text in enumerate(texts))


GOOD, BAD = "a truly good film", "a really bad film"
TINY = Splits(
    ("n", "p"), examples(*[GOOD, BAD] * 5), examples(GOOD, BAD), examples("good", "bad", "bad")
)


def test_on_sentences_it_is_as_good_as_it_was_measured() -> None:
    splits = load(DataSpec(train_size=4000, validation_size=500, test_size=2000))
    rival = linear_baseline.fit(splits).figures
    assert rival.test["accuracy"] == pytest.approx(0.75, abs=0.015)
    assert rival.test["macro_f1"] == pytest.approx(rival.test["accuracy"], abs=0.01)
    assert rival.validation["accuracy"] == pytest.approx(0.75, abs=0.04)
    assert rival.train_texts == 4000


def test_figures_are_of_the_part_they_name() -> None:
    rival = linear_baseline.fit(TINY).figures
    assert rival.validation == {"accuracy": 1.0, "macro_f1": 1.0}
    assert rival.test["accuracy"] == pytest.approx(2 / 3)
    assert rival.test["macro_f1"] == pytest.approx(2 / 3)


def test_it_is_fitted_once_for_the_same_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    first = linear_baseline.fit(TINY).figures
    assert not first.cached
    with monkeypatch.context() as patch:
        patch.setattr(linear_baseline, "_fit", None)
        again = linear_baseline.fit(TINY).figures
    assert again == first.model_copy(update={"cached": True})
    other = Splits(TINY.labels, TINY.train, TINY.test, TINY.validation)
    assert not linear_baseline.fit(other).figures.cached


def test_a_damaged_entry_is_fitted_anew(store: Path) -> None:
    first = linear_baseline.fit(TINY).figures
    (entry,) = store.iterdir()
    entry.write_text("{")
    assert linear_baseline.fit(TINY).figures.test == first.test


def test_of_many_texts_a_balanced_part_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_baseline, "MAX_TEXTS", 10)
    train = tuple(
        Example(i, f"{GOOD if i >= 30 else BAD} number {i}", int(i >= 30)) for i in range(60)
    )
    rival = linear_baseline.fit(Splits(TINY.labels, train, TINY.validation, TINY.test)).figures
    assert rival.train_texts == 10
    assert rival.validation["accuracy"] == pytest.approx(0.0)


def test_texts_without_a_common_word_leave_only_the_most_frequent_label() -> None:
    train = (Example(1, "one", 0), Example(2, "two", 1), Example(3, "three", 1))
    rival = linear_baseline.fit(
        Splits(("n", "p"), train, examples("a", "b"), examples("a", "b", "c"))
    ).figures
    assert rival.validation == {"accuracy": 0.5, "macro_f1": pytest.approx(1 / 3)}
    assert rival.test["accuracy"] == pytest.approx(1 / 3)


def test_a_class_without_examples_in_a_part_counts_where_it_is_answered() -> None:
    splits = Splits(("n", "p"), TINY.train, (Example(1, GOOD, 0),), (Example(1, BAD, 1),))
    wrong = Splits(("n", "p"), TINY.train, (Example(1, GOOD, 0), Example(2, BAD, 0)), splits.test)
    assert linear_baseline.fit(splits).figures.validation == {"accuracy": 1.0, "macro_f1": 1.0}
    assert linear_baseline.fit(wrong).figures.validation == {
        "accuracy": 0.5,
        "macro_f1": pytest.approx(1 / 3),
    }
