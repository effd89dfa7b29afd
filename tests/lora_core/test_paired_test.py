"""The paired test: exact for accuracy, by permutation for other metrics, and its level holds."""

import time
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from lora_core import paired_test as module
from lora_core.paired_test import one_sided_paired_test, one_sided_sign_test
from lora_core.tasks.primary_metric import Accuracy, MacroF1, RootMeanSquaredError


def test_sign_test_is_a_binomial_test() -> None:
    for better, worse in [(0, 0), (1, 0), (5, 5), (30, 18), (0, 7), (400, 300)]:
        tosses = better + worse
        expected = binomtest(better, tosses, alternative="greater").pvalue if tosses else 1.0
        assert one_sided_sign_test(better, worse) == pytest.approx(expected)


def test_sign_test_of_many_texts_takes_no_time() -> None:
    """A sum of that many binomial coefficients would take minutes."""
    before = time.process_time()
    assert one_sided_sign_test(15_300, 14_700) == pytest.approx(2.7e-4, rel=0.02)
    assert one_sided_sign_test(60_000, 60_000) == pytest.approx(0.5, abs=0.01)
    assert time.process_time() - before < 2


def test_accuracy_is_tested_exactly() -> None:
    truth = np.arange(40) % 2
    new, current = truth.copy(), truth.copy()
    new[:3] ^= 1
    current[3:13] ^= 1
    metric = Accuracy()
    found = one_sided_paired_test(
        metric, metric.per_text_statistics(truth, new), metric.per_text_statistics(truth, current)
    )
    assert (found.better, found.worse, found.texts) == (10, 3, 40)
    assert found.difference == pytest.approx(7 / 40)
    assert found.p_value == binomtest(10, 13, alternative="greater").pvalue
    assert found.p_worse == binomtest(3, 13, alternative="greater").pvalue


def test_other_metrics_exchange_predictions() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, size=(8, 3))
    new, current = (np.where(rng.random((8, 3)) < each, truth, 1 - truth) for each in (0.9, 0.6))
    metric = MacroF1()
    found = one_sided_paired_test(
        metric, metric.per_text_statistics(truth, new), metric.per_text_statistics(truth, current)
    )

    def difference(exchanged: NDArray[Any]) -> float:
        first, second = (np.where(each[:, None], current, new) for each in (exchanged, ~exchanged))
        scores = [
            f1_score(truth, each, average="macro", zero_division=0.0) for each in (first, second)
        ]
        return float(scores[0] - scores[1])

    observed = difference(np.zeros(8, dtype=bool))
    assert found.difference == pytest.approx(observed)
    every = [difference(np.array(each, dtype=bool)) for each in product([0, 1], repeat=8)]
    exact = np.mean(np.array(every) >= observed - 1e-12)
    assert found.p_value == pytest.approx(exact, abs=0.02)


def test_smaller_errors_are_better() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=200)
    metric = RootMeanSquaredError()
    close, far = (
        metric.per_text_statistics(truth, truth + each * rng.normal(size=200)) for each in (0.5, 1)
    )
    better, worse = (
        one_sided_paired_test(metric, close, far),
        one_sided_paired_test(metric, far, close),
    )
    assert better.p_value == 1 / (1 + module.PERMUTATIONS)
    assert better.difference == pytest.approx(-worse.difference)
    assert better.difference > 0.3
    assert worse.p_value > 0.99
    assert (better.p_worse, worse.p_worse) == (worse.p_value, better.p_value)
    small = one_sided_paired_test(metric, close * 2.0**-120, far * 2.0**-120)
    assert (small.p_value, small.p_worse) == (better.p_value, better.p_worse)


def test_equal_models_are_not_better() -> None:
    truth = np.eye(6)
    for metric in (Accuracy(), MacroF1(), RootMeanSquaredError()):
        shaped = truth if metric.name == "macro_f1" else truth[0]
        statistics = metric.per_text_statistics(shaped, 1 - shaped)
        assert one_sided_paired_test(metric, statistics, statistics).p_value == 1


def test_level_holds_where_nothing_is_gained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PERMUTATIONS", 199)
    rng, promoted = np.random.default_rng(0), {"accuracy": 0, "macro_f1": 0}
    repetitions, level = 400, 0.05
    for seed in range(repetitions):
        truth = rng.integers(0, 2, size=(80, 4))
        two = [np.where(rng.random((80, 4)) < 0.8, truth, 1 - truth) for _ in range(2)]
        for metric, column in ((Accuracy(), 0), (MacroF1(), slice(None))):
            new, current = (
                metric.per_text_statistics(truth[:, column], each[:, column]) for each in two
            )
            promoted[metric.name] += (
                one_sided_paired_test(metric, new, current, seed).p_value <= level
            )
    limit = level + 2 * (level * (1 - level) / repetitions) ** 0.5
    assert promoted["accuracy"] / repetitions <= limit
    assert 0 < promoted["macro_f1"] / repetitions <= limit


def test_models_need_the_same_texts() -> None:
    metric = Accuracy()
    with pytest.raises(ValueError, match="for the same texts"):
        one_sided_paired_test(metric, np.ones((3, 1)), np.ones((4, 1)))
    with pytest.raises(ValueError, match="for the same texts"):
        one_sided_paired_test(metric, np.ones((0, 1)), np.ones((0, 1)))
