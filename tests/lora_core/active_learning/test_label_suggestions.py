"""Suggestions by the labels so far: probabilities, uncertainty, and similar texts."""

import tracemalloc
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge

from lora_core.active_learning.label_suggestions import (
    INVERSE_REGULARIZATION,
    RIDGE_ALPHA,
    Label,
    SuggestionModel,
    find_k_nearest_labeled_rows,
    score_uncertainty_excluding_random_labels,
)
from lora_core.specs.task import TaskTypeOfTarget

NAMES = np.array(["bad", "fair", "good"])
Vectors = NDArray[np.float32]


@pytest.fixture
def data() -> tuple[Vectors, NDArray[np.int64]]:
    """Vectors around three centers, and which."""
    rng = np.random.default_rng(0)
    center = rng.integers(0, 3, size=120)
    x = rng.normal(size=(3, 6))[center] + 0.5 * rng.normal(size=(120, 6))
    return x.astype(np.float32), center


def names_of(center: NDArray[np.int64]) -> list[Label]:
    return [str(NAMES[i]) for i in center]


def sets_of(center: NDArray[np.int64]) -> list[Label]:
    return [frozenset({"good"} if i == 2 else {"bad", "any"} if i == 0 else ()) for i in center]


def test_probabilities_are_those_of_scikit_learn(data: tuple[Vectors, NDArray[np.int64]]) -> None:
    x, center = data
    model = SuggestionModel.fit(x[:60], names_of(center[:60]), "single_label")
    assert model is not None
    assert model.labels == tuple(NAMES)
    norm = np.linalg.norm(x[:60], axis=1).mean()
    reference = LogisticRegression(C=INVERSE_REGULARIZATION, tol=1e-8, max_iter=10_000)
    reference.fit(x[:60] / norm, center[:60])
    assert model.scores(x) == pytest.approx(reference.predict_proba(x / norm), abs=0.01)
    assert model.predict(x) == names_of(reference.predict(x / norm))


@pytest.mark.parametrize("task", get_args(TaskTypeOfTarget))
def test_uncertainty_does_not_know_random_texts(
    data: tuple[Vectors, NDArray[np.int64]], task: TaskTypeOfTarget
) -> None:
    x, center = data
    labels_of: dict[str, list[Label]] = {
        "single_label": names_of(center),
        "multi_label": sets_of(center),
        "regression": [float(each) for each in center],
    }
    labels = labels_of[task]
    rows = np.arange(119, 59, -1)  # the labeled texts, in the order of their labels
    random = range(0, 60, 3)
    given = [labels[row] for row in rows]
    found = score_uncertainty_excluding_random_labels(x, rows, given, random, task)
    others = [row for place, row in enumerate(rows) if place % 3]
    model = SuggestionModel.fit(x[others], [labels[row] for row in others], task)
    assert model is not None
    assert found == pytest.approx(model.uncertainty(x), abs=1e-6)
    changed = [given[5] if place % 3 == 0 else each for place, each in enumerate(given)]
    again = score_uncertainty_excluding_random_labels(x, rows, changed, random, task)
    assert found is not None
    assert again is not None
    assert np.array_equal(found, again)
    assert score_uncertainty_excluding_random_labels(x, rows, given, range(60), task) is None


def test_two_labels(data: tuple[Vectors, NDArray[np.int64]]) -> None:
    x, center = data
    two = center > 0
    model = SuggestionModel.fit(x, [str(each) for each in two], "single_label")
    assert model is not None
    scores = model.scores(x)
    assert scores.sum(axis=1) == pytest.approx(1)
    assert ((scores[:, 1] > 0.5) == two).mean() > 0.9
    first, second = np.sort(scores, axis=1)[:, ::-1].T
    assert model.uncertainty(x) == pytest.approx(1 - (first - second))  # 1 - margin


def test_several_labels_have_a_regression_each(data: tuple[Vectors, NDArray[np.int64]]) -> None:
    x, center = data
    model = SuggestionModel.fit(x, sets_of(center), "multi_label")
    assert model is not None
    assert model.labels == ("any", "bad", "good")
    scores = model.scores(x)
    norm = np.linalg.norm(x, axis=1).mean()
    good = LogisticRegression(C=INVERSE_REGULARIZATION, tol=1e-8).fit(x / norm, center == 2)
    assert scores[:, 2] == pytest.approx(good.predict_proba(x / norm)[:, 1], abs=0.01)
    right = [found == truth for found, truth in zip(model.predict(x), sets_of(center), strict=True)]
    assert np.mean(right) > 0.85
    entropy = -(scores * np.log2(scores) + (1 - scores) * np.log2(1 - scores))
    assert model.uncertainty(x) == pytest.approx(entropy.mean(axis=1))


def test_label_of_every_text_is_nearly_always_predicted(
    data: tuple[Vectors, NDArray[np.int64]],
) -> None:
    x, center = data
    labels: list[Label] = [frozenset({"all", str(NAMES[i])}) for i in center]
    model = SuggestionModel.fit(x, labels, "multi_label")
    assert model is not None
    assert model.scores(x)[:, 0] == pytest.approx((len(x) + 1) / (len(x) + 2))


def test_numbers_are_those_of_ridge_regression(data: tuple[Vectors, NDArray[np.int64]]) -> None:
    x, center = data
    numbers = 10.0 + 3 * center
    model = SuggestionModel.fit(x, numbers.tolist(), "regression")
    assert model is not None
    norm = np.linalg.norm(x, axis=1).mean()
    reference = Ridge(alpha=RIDGE_ALPHA).fit(x / norm, numbers).predict(x / norm)
    assert model.predict(x) == pytest.approx(reference, abs=1e-3)


def test_unlike_texts_are_the_uncertain_ones_of_a_regression() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 4)).astype(np.float32)
    x[:, 3] = 0  # a direction that no labeled text has
    model = SuggestionModel.fit(x, x[:, 0].astype(float).tolist(), "regression")
    assert model is not None
    uncertainty = model.uncertainty(np.eye(4, dtype=np.float32) * 2 + x.mean(axis=0))
    assert uncertainty[3] == pytest.approx(1)
    assert (uncertainty[:3] < 0.1).all()


@pytest.mark.parametrize("task", get_args(TaskTypeOfTarget))
def test_result_does_not_depend_on_the_scale_of_the_vectors(
    data: tuple[Vectors, NDArray[np.int64]], task: TaskTypeOfTarget
) -> None:
    x, center = data
    of_tasks: dict[TaskTypeOfTarget, list[Label]] = {
        "single_label": names_of(center),
        "multi_label": sets_of(center),
        "regression": [float(each) for each in center],
    }
    labels = of_tasks[task]
    small, large = (SuggestionModel.fit(scale * x, labels, task) for scale in (0.01, 100))
    assert small is not None
    assert large is not None
    assert small.scores(0.01 * x) == pytest.approx(large.scores(100 * x), abs=1e-3)
    assert small.uncertainty(0.01 * x) == pytest.approx(large.uncertainty(100 * x), abs=1e-3)
    uncertainty = small.uncertainty(0.01 * x)
    assert ((uncertainty >= 0) & (uncertainty <= 1 + 1e-6)).all()


@pytest.mark.parametrize(
    ("labels", "task", "enough"),
    [
        ([], "single_label", False),
        (["a"] * 30, "single_label", False),
        (["a"] * 30 + ["b"] * 4, "single_label", False),
        (["a"] * 30 + ["b"] * 5, "single_label", True),
        ([], "multi_label", False),
        ([frozenset()] * 20, "multi_label", False),
        ([frozenset("a")] * 20, "multi_label", False),
        ([frozenset("a")] * 20 + [frozenset()] * 4, "multi_label", False),
        ([frozenset("a")] * 20 + [frozenset()] * 5, "multi_label", True),
        ([], "regression", False),
        ([1.0] * 20, "regression", False),
        ([1.0] * 8 + [2.0], "regression", False),
        ([1.0] * 9 + [2.0], "regression", True),
    ],
)
def test_too_few_labels_give_no_model(
    labels: list[Label], task: TaskTypeOfTarget, enough: bool
) -> None:
    x = np.random.default_rng(0).normal(size=(len(labels), 3)).astype(np.float32)
    assert (SuggestionModel.fit(x, labels, task) is not None) == enough


def test_labels_of_another_task_are_refused() -> None:
    x = np.ones((1, 2), dtype=np.float32)
    with pytest.raises(TypeError, match="is a set of names, not 'a'"):
        SuggestionModel.fit(x, ["a"], "multi_label")
    with pytest.raises(TypeError, match="is a number, not 'a'"):
        SuggestionModel.fit(x, ["a"], "regression")


def test_texts_without_a_vector_are_harmless() -> None:
    x = np.zeros((20, 3), dtype=np.float32)
    model = SuggestionModel.fit(x, ["a", "b"] * 10, "single_label")
    assert model is not None
    assert model.scores(x) == pytest.approx(0.5)
    assert find_k_nearest_labeled_rows(x, 0, [1, 2]) == [1, 2]


def test_nearest_texts_by_cosine() -> None:
    x = np.array([[1, 0], [10, 1], [0, 5], [1, 1], [-1, 0]], dtype=np.float32)
    assert find_k_nearest_labeled_rows(x, 0, [4, 3, 2, 1, 0], k=3) == [1, 3, 2]
    assert find_k_nearest_labeled_rows(x, 0, [0]) == []


@pytest.mark.parametrize("task", get_args(TaskTypeOfTarget))
def test_uncertainty_of_a_pool_takes_little_memory(task: TaskTypeOfTarget) -> None:
    """Less than one array of a number for each text and label, or each text and dimension."""
    x = np.random.default_rng(0).normal(size=(40_000, 32)).astype(np.float32)
    labels_of: dict[str, list[Label]] = {
        "single_label": [f"label {n % 32}" for n in range(320)],
        "multi_label": [frozenset([f"label {n % 32}"]) for n in range(320)],
        "regression": [float(n) for n in range(320)],
    }
    model = SuggestionModel.fit(x[:320], labels_of[task], task)
    assert model is not None
    tracemalloc.start()
    found = model.uncertainty(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * x.size
    assert found[-3:] == pytest.approx(model.uncertainty(x[-3:]))
