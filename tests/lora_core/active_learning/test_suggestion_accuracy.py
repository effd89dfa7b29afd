"""Accuracy so far: measured on random texts only, out of fold, with an interval that holds."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lora_core.active_learning.label_suggestions import Label, SuggestionModel
from lora_core.active_learning.suggestion_accuracy import (
    MIN_RANDOM_TEXTS,
    NUM_FOLDS,
    estimate_suggestion_accuracy,
)
from lora_core.confidence_intervals import wilson_interval

RNG_WIDTH = 6


def draw(seed: int, texts: int) -> tuple[NDArray[Any], list[Label]]:
    """Two overlapping labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, size=texts)
    x = rng.normal(size=(texts, RNG_WIDTH))
    x[:, 0] += 2.0 * labels
    return x.astype(np.float32), [str(each) for each in labels]


def test_out_of_fold_accuracy_of_random_texts() -> None:
    x, labels = draw(0, 120)
    evaluated = list(range(60))
    found = estimate_suggestion_accuracy(x, labels, evaluated, "single_label", seed=4)
    assert found is not None
    fold = np.random.default_rng(4).permutation(60) % NUM_FOLDS
    right = 0
    for text in evaluated:  # one by one
        train = [i for i in range(120) if i >= 60 or fold[i] != fold[text]]
        model = SuggestionModel.fit(x[train], [labels[i] for i in train], "single_label")
        assert model is not None
        right += model.predict(x[[text]])[0] == labels[text]
    assert (found.metric, found.texts, found.value) == ("accuracy", 60, right / 60)
    assert (found.low, found.high) == wilson_interval(right / 60, 60)


def test_texts_chosen_for_their_uncertainty_only_train() -> None:
    x, labels = draw(1, 400)
    boundary = np.argsort(np.abs(x[100:, 0] - 1.0))[:60] + 100  # between the two labels
    rows = [*range(100), *boundary.tolist()]
    given = [labels[i] for i in rows]
    found = estimate_suggestion_accuracy(x[rows], given, range(100), "single_label")
    everything = estimate_suggestion_accuracy(x[rows], given, range(160), "single_label")
    assert found is not None
    assert everything is not None
    assert found.texts == 100
    assert found.value > everything.value + 0.05  # those at the boundary are harder


@pytest.mark.slow  # of sixty drawn sets
def test_interval_holds_the_accuracy_on_new_texts() -> None:
    holds = 0
    x_new, new = draw(10_000, 4000)
    for seed in range(60):
        x, labels = draw(seed, 150)
        found = estimate_suggestion_accuracy(x, labels, range(50), "single_label", seed=seed)
        model = SuggestionModel.fit(x, labels, "single_label")
        assert found is not None
        assert model is not None
        truth = np.mean([a == b for a, b in zip(model.predict(x_new), new, strict=True)])
        holds += int(found.low <= truth <= found.high)
    assert holds >= 53  # of 60; 57 are expected


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_other_tasks_have_their_metric(task: str) -> None:
    x, labels = draw(2, 100)
    if task == "multi_label":
        sets: list[Label] = [frozenset({"a"}) if each == "1" else frozenset() for each in labels]
        found = estimate_suggestion_accuracy(x, sets, range(40), "multi_label")
        assert found is not None
        assert found.metric == "macro_f1"
        assert 0.6 < found.value <= 1
    else:
        found = estimate_suggestion_accuracy(
            x, [float(each == "1") for each in labels], range(40), "regression"
        )
        assert found is not None
        assert found.metric == "rmse"
        assert 0.2 < found.value < 0.5
    assert found.low < found.value < found.high


def test_too_few_random_texts_or_labels_say_nothing() -> None:
    x, labels = draw(3, 100)
    few = range(MIN_RANDOM_TEXTS - 1)
    assert estimate_suggestion_accuracy(x, labels, few, "single_label") is None
    same: list[Label] = ["a"] * 100
    assert estimate_suggestion_accuracy(x, same, range(40), "single_label") is None


def test_macro_f1_is_not_defined_if_no_label_occurs() -> None:
    x, _ = draw(4, 100)
    rare = x[:, 0] > np.sort(x[:, 0])[-12]  # none of them drawn at random
    sets: list[Label] = [frozenset({"a"}) if each else frozenset() for each in rare]
    others = np.flatnonzero(x[:, 0] < np.median(x[:, 0]))
    assert estimate_suggestion_accuracy(x, sets, others, "multi_label") is None
