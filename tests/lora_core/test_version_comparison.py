"""The comparison of two versions: the metrics of each task, and that the level holds."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score, root_mean_squared_error

from lora_core.specs.encoded_labels import LabelValue
from lora_core.specs.task import TaskTypeOfTarget
from lora_core.version_comparison import (
    PairedPrediction,
    compare_versions,
    primary_metric_name,
)

ONE: Mapping[str, TaskTypeOfTarget] = {"": "single_label"}


def evaluated(*columns: Sequence[LabelValue]) -> list[PairedPrediction]:
    """Texts of a task with one target: truth, current, new."""
    return [PairedPrediction(*({"": value} for value in row)) for row in zip(*columns, strict=True)]


def test_accuracy_and_counts() -> None:
    truth = ["a"] * 20
    current = ["a"] * 10 + ["b"] * 10
    new = ["c"] + ["a"] * 15 + ["b"] * 4
    found = compare_versions(evaluated(truth, current, new), ONE)
    assert (found.current.value, found.new.value) == (0.5, 0.75)
    assert (found.better, found.worse, found.texts) == (6, 1, 20)
    assert found.difference == pytest.approx(0.25)
    assert found.p_better == binomtest(6, 7, alternative="greater").pvalue
    assert found.p_worse == binomtest(1, 7, alternative="greater").pvalue
    assert found.new.low < 0.75 < found.new.high
    assert primary_metric_name(ONE) == "accuracy"


def test_sets_of_labels() -> None:
    names = ("p", "q", "r")
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, size=(3, 40, 3))
    columns = [
        [tuple(name for name, bit in zip(names, row, strict=True) if bit) for row in array]
        for array in bits
    ]
    found = compare_versions(evaluated(*columns), {"": "multi_label"})
    for score, predicted in ((found.current, bits[1]), (found.new, bits[2])):
        assert score.value == pytest.approx(f1_score(bits[0], predicted, average="macro"))
    assert primary_metric_name({"": "multi_label"}) == "macro_f1"


def test_numbers() -> None:
    truth, current, new = np.random.default_rng(0).normal(size=(3, 40))
    found = compare_versions(evaluated(truth, current, new), {"": "regression"})
    assert found.new.value == pytest.approx(root_mean_squared_error(truth, new))
    assert found.difference == pytest.approx(found.current.value - found.new.value)


def test_several_targets() -> None:
    tasks: Mapping[str, TaskTypeOfTarget] = {"flags": "multi_label", "topic": "single_label"}
    texts = [
        PairedPrediction(
            {"flags": ("x",), "topic": "a" if i % 2 else "b"},
            {"flags": (), "topic": "a"},
            {"flags": ("x",), "topic": "a" if i % 2 else "b"},
        )
        for i in range(40)
    ]
    found = compare_versions(texts, tasks)
    assert found.new.value == 1
    assert found.current.value < 0.1  # no better than constants
    assert found.p_better < 0.001
    assert (found.better, found.worse) == (40, 0)
    assert primary_metric_name(tasks) == "skill"


def test_labels_that_no_text_has_do_not_raise_the_skill() -> None:
    tasks: Mapping[str, TaskTypeOfTarget] = {"flags": "multi_label", "others": "multi_label"}
    always, noisy = dict.fromkeys(tasks, ("x",)), dict.fromkeys(tasks, ("x", "y", "z"))
    truth = [dict.fromkeys(tasks, ("x",) if i % 2 else ()) for i in range(40)]
    texts = [PairedPrediction(each, always, noisy) for each in truth]
    assert compare_versions(texts, tasks).current.value == pytest.approx(0)


@pytest.mark.parametrize(
    "tasks", [{"flags": "multi_label"}, {"flags": "multi_label", "topic": "single_label"}]
)
def test_equal_predictions_are_neither_better_nor_worse(
    tasks: Mapping[str, TaskTypeOfTarget],
) -> None:
    rng = np.random.default_rng(0)

    def noisy(labels: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in "abc" if (name in labels) != (rng.random() < 0.15))

    truth = [tuple(name for name in "abc" if rng.random() < 0.4) for _ in range(200)]
    current = [noisy(labels) for labels in truth]
    new = [*truth[:20], *current[20:]]
    texts = [
        PairedPrediction(
            {"flags": a, "topic": "x"}, {"flags": b, "topic": "x"}, {"flags": c, "topic": "x"}
        )
        for a, b, c in zip(truth, current, new, strict=True)
    ]
    found = compare_versions(texts, tasks)
    differing = sum(a != b for a, b in zip(current, new, strict=True))
    assert (found.better, found.worse) == (differing, 0)


def test_labels_that_only_one_has() -> None:
    texts = evaluated(["a", "new"], ["a", "a"], ["a", "other"])
    assert compare_versions(texts, ONE).better == 0


def test_no_texts() -> None:
    with pytest.raises(ValueError, match="no texts"):
        compare_versions([], ONE)


@pytest.mark.slow  # compares 800 pairs of versions
def test_level_holds_without_gain() -> None:
    """Of retrainings whose version is as good as production, at most 5% are promoted."""
    rng, promoted, runs = np.random.default_rng(0), 0, 800
    for _ in range(runs):
        texts = 120
        right = rng.random((2, texts)) < 0.8
        rows = ["right" if each else "wrong" for each in right.ravel()]
        found = compare_versions(evaluated(["right"] * texts, rows[:texts], rows[texts:]), ONE)
        promoted += found.p_better <= 0.05
    assert promoted / runs <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)
    assert promoted / runs > 0.01  # an exact test is conservative, but not without power
