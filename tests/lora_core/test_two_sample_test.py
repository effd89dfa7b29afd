"""The two-sample test: silent on the same distribution, loud on another, exact in its level."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.stats import kstest
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from lora_core import two_sample_test
from lora_core.specs.drift import MIN_TEXTS
from lora_core.two_sample_test import classifier_two_sample_test


def texts(seed: int, count: int, shift: float = 0.0) -> NDArray[Any]:
    x = np.random.default_rng(seed).normal(size=(count, 12))
    x[:, 0] += shift
    return x.astype(np.float32)


@pytest.mark.slow  # repeats the test a hundred times
def test_p_values_are_uniform_without_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_sample_test, "PERMUTATIONS", 99)
    values = []
    for week in range(100):
        found = classifier_two_sample_test(texts(2 * week, 60), texts(2 * week + 1, 60), seed=week)
        assert found is not None
        values.append(found.p_value)
    assert kstest(values, "uniform").pvalue > 0.01
    assert np.mean(np.array(values) <= 0.05) <= 0.05 + 2 * (0.05 * 0.95 / 100) ** 0.5


def test_drift_is_seen_and_its_texts_are_named() -> None:
    recent = np.concatenate([texts(1, 100), texts(2, 100, shift=4.0)])
    found = classifier_two_sample_test(texts(0, 300), recent, rows=20)
    assert found is not None
    assert found.p_value == 1 / (1 + two_sample_test.PERMUTATIONS)
    assert found.auc > 0.7
    assert (found.reference_texts, found.recent_texts) == (300, 200)
    assert np.mean([row >= 100 for row in found.most_different]) > 0.9
    assert len(found.most_different) == 20


def test_scores_are_those_of_ridge_regression() -> None:
    reference, recent = texts(0, 80), texts(1, 70, shift=0.5)
    found = classifier_two_sample_test(reference, recent, seed=3)
    assert found is not None
    rng = np.random.default_rng(3)
    rows = [np.sort(rng.permutation(n)) for n in (80, 70)]
    x = np.concatenate([reference[rows[0]], recent[rows[1]]]).astype(float)
    x -= x.mean(axis=0)
    x /= np.linalg.norm(x, axis=1).mean()
    side = (np.arange(150) >= 80).astype(float)
    for _ in range(two_sample_test.PERMUTATIONS):
        rng.permutation(150)
    fold = rng.permutation(150) % two_sample_test.NUM_FOLDS
    scores = np.empty(150)
    for each in range(two_sample_test.NUM_FOLDS):
        train = fold != each
        ridge = Ridge(alpha=two_sample_test.RIDGE * train.sum(), fit_intercept=False)
        scores[~train] = ridge.fit(x[train], side[train] - side[train].mean()).predict(x[~train])
    assert found.auc == pytest.approx(roc_auc_score(side, scores))


def test_same_seed_gives_the_same_result_and_large_sides_are_sampled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(two_sample_test, "MAX_TEXTS", 100)
    monkeypatch.setattr(two_sample_test, "PERMUTATIONS", 19)
    sides = texts(0, 250), texts(1, 180)
    first = classifier_two_sample_test(*sides, seed=1)
    assert first is not None
    assert first == classifier_two_sample_test(*sides, seed=1)
    assert (first.reference_texts, first.recent_texts) == (100, 100)
    assert max(first.most_different) < 180


def test_too_few_texts_say_nothing() -> None:
    assert classifier_two_sample_test(texts(0, MIN_TEXTS - 1), texts(1, 200)) is None
    assert classifier_two_sample_test(texts(0, 200), texts(1, MIN_TEXTS - 1)) is None


def test_equal_texts_do_not_differ() -> None:
    same = np.ones((MIN_TEXTS, 4), dtype=np.float32)
    found = classifier_two_sample_test(same, same)
    assert found is not None
    assert found.p_value == 1
    assert found.auc == 0.5


def test_sparse_vectors_give_the_same_result() -> None:
    rng = np.random.default_rng(0)
    sides = [rng.random((count, 40)) * (rng.random((count, 40)) < 0.2) for count in (90, 70)]
    dense = classifier_two_sample_test(sides[0], sides[1])
    sparse = classifier_two_sample_test(csr_matrix(sides[0]), csr_matrix(sides[1]))
    assert dense is not None
    assert sparse is not None
    assert sparse.auc == pytest.approx(dense.auc)
    assert (sparse.p_value, sparse.most_different) == (dense.p_value, dense.most_different)
