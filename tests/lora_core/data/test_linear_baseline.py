import os
from pathlib import Path

import pytest

from lora_core import cache
from lora_core.data import linear_baseline
from lora_core.data.load import load_splits
from lora_core.data.split import Example, Splits
from lora_core.events import LinearModelFitted
from lora_core.specs.data import DataSpec
from lora_core.tasks.multi_label import MultiLabel
from lora_core.tasks.several_targets import SeveralTargets
from lora_core.tasks.single_label import SingleLabel


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORAWORKS_CACHE", str(tmp_path))
    return tmp_path / "linear"


def examples(*texts: str) -> tuple[Example, ...]:
    return tuple(Example(i, text, i % 2) for i, text in enumerate(texts))


GOOD, BAD = "a truly good film", "a really bad film"
TINY = Splits(
    ("n", "p"), examples(*[GOOD, BAD] * 5), examples(GOOD, BAD), examples("good", "bad", "bad")
)


def evaluate(splits: Splits) -> LinearModelFitted:
    return linear_baseline.fit_or_load_linear_baseline(splits, SingleLabel(splits.labels)).metrics


@pytest.mark.slow  # on 4,000 real texts
def test_accuracy_on_rotten_tomatoes() -> None:
    splits = load_splits(DataSpec(train_size=4000, validation_size=500, test_size=2000))
    baseline = evaluate(splits)
    assert baseline.test["accuracy"] == pytest.approx(0.75, abs=0.015)
    assert baseline.test["macro_f1"] == pytest.approx(baseline.test["accuracy"], abs=0.01)
    assert baseline.validation["accuracy"] == pytest.approx(0.75, abs=0.04)
    assert baseline.train_texts == 4000


def test_metrics_of_each_split() -> None:
    baseline = evaluate(TINY)
    assert baseline.validation == {"accuracy": 1.0, "macro_f1": 1.0}
    assert baseline.test["accuracy"] == pytest.approx(2 / 3)
    assert baseline.test["macro_f1"] == pytest.approx(2 / 3)


def test_baseline_is_cached(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluate(TINY)
    assert not first.cached
    (entry,) = cache_folder.iterdir()
    os.utime(entry, (0, 0))
    with monkeypatch.context() as patch:
        patch.setattr(linear_baseline, "_evaluate", None)
        again = evaluate(TINY)
    assert again == first.model_copy(update={"cached": True})
    assert entry.stat().st_mtime > 0  # it was used
    other = Splits(TINY.labels, TINY.train, TINY.test, TINY.validation)
    assert not evaluate(other).cached
    thresholds = SingleLabel(TINY.labels, tune_thresholds=True)
    assert not linear_baseline.fit_or_load_linear_baseline(TINY, thresholds).metrics.cached


def test_cache_keeps_its_limit(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cache.FOLDER_LIMITS, "linear", 1)
    evaluate(Splits(TINY.labels, TINY.train, TINY.test, TINY.validation))
    evaluate(TINY)
    assert len(list(cache_folder.iterdir())) == 1
    assert evaluate(TINY).cached


def test_damaged_cache_entry_is_refitted(cache_folder: Path) -> None:
    first = evaluate(TINY)
    (entry,) = cache_folder.iterdir()
    entry.write_text("{")
    assert evaluate(TINY).test == first.test


def test_many_texts_are_subsampled_stratified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_baseline, "MAX_TEXTS", 10)
    train = tuple(
        Example(i, f"{GOOD if i >= 30 else BAD} number {i}", int(i >= 30)) for i in range(60)
    )
    baseline = evaluate(Splits(TINY.labels, train, TINY.validation, TINY.test))
    assert baseline.train_texts == 10
    assert baseline.validation["accuracy"] == pytest.approx(0.0)


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_training_texts_have_every_label_of_several_targets(
    kind: str, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fit of each of the labels would be for 6 texts, fewer than there are labels."""
    monkeypatch.setattr(linear_baseline, "MAX_FITTED_LABELS", 100)
    names = [f"topic {i}" for i in range(15)]
    topic = SingleLabel(names) if kind == "single_label" else MultiLabel(names)
    tasks = {"mood": SingleLabel(("n", "p")), "topic": topic}
    task = SeveralTargets(tasks, {"mood": 1.0, "topic": 1.0})
    train = []
    for i in range(90):
        text, topic_of = i // copies, i // copies % 15
        label = {"mood": text % 2, "topic": topic_of if kind == "single_label" else (topic_of,)}
        train.append(Example(i, f"text {text}", label))
    splits = Splits(task.labels, tuple(train), tuple(train[:20]), tuple(train[20:40]))
    used = linear_baseline.fit_or_load_linear_baseline(splits, task).metrics.train_texts
    assert used == 90 if kind == "single_label" else 15 * copies <= used < 90


def test_no_common_word_predicts_the_majority() -> None:
    train = (Example(1, "one", 0), Example(2, "two", 1), Example(3, "three", 1))
    baseline = evaluate(Splits(("n", "p"), train, examples("a", "b"), examples("a", "b", "c")))
    assert baseline.validation == {"accuracy": 0.5, "macro_f1": pytest.approx(1 / 3)}
    assert baseline.test["accuracy"] == pytest.approx(1 / 3)


def test_f1_of_classes_missing_in_a_split() -> None:
    splits = Splits(("n", "p"), TINY.train, (Example(1, GOOD, 0),), (Example(1, BAD, 1),))
    wrong = Splits(("n", "p"), TINY.train, (Example(1, GOOD, 0), Example(2, BAD, 0)), splits.test)
    assert evaluate(splits).validation == {"accuracy": 1.0, "macro_f1": 1.0}
    assert evaluate(wrong).validation == {
        "accuracy": 0.5,
        "macro_f1": pytest.approx(1 / 3),
    }
