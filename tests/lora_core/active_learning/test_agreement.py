"""Agreement of annotators: as scikit-learn computes it, for each kind of label."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from lora_core.active_learning.agreement import cohen_kappa


def test_kappa_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        first = rng.integers(0, 4, size=50)
        second = np.where(rng.random(50) < 0.6, first, rng.integers(0, 4, size=50))
        pairs = [(str(a), str(b)) for a, b in zip(first, second, strict=True)]
        assert cohen_kappa(pairs) == pytest.approx(cohen_kappa_score(first, second))


def test_kappa_of_sets_is_the_mean_of_their_labels() -> None:
    rng = np.random.default_rng(1)
    first, second = (rng.random((80, 3)) < 0.4 for _ in range(2))
    second |= first
    pairs = [
        tuple(frozenset(np.array(list("abc"))[row].tolist()) for row in both)
        for both in zip(first, second, strict=True)
    ]
    expected = np.mean([cohen_kappa_score(first[:, i], second[:, i]) for i in range(3)])
    assert cohen_kappa([(a, b) for a, b in pairs]) == pytest.approx(expected)


def test_kappa_of_numbers_has_quadratic_weights() -> None:
    rng = np.random.default_rng(2)
    first = rng.integers(0, 5, size=60)
    second = np.clip(first + rng.integers(-1, 2, size=60), 0, 4)
    pairs = [(float(a), float(b)) for a, b in zip(first, second, strict=True)]
    expected = cohen_kappa_score(first, second, weights="quadratic")
    assert cohen_kappa(pairs) == pytest.approx(expected)


def test_kappa_is_not_defined_without_texts_or_variation() -> None:
    assert cohen_kappa([]) is None
    assert cohen_kappa([("a", "a")] * 5) is None
    assert cohen_kappa([(frozenset(), frozenset())] * 5) is None
    assert cohen_kappa([(1.0, 1.0)] * 5) is None
    assert cohen_kappa([(0.1, 0.1)] * 3) is None  # whose mean is not exactly 0.1
    assert cohen_kappa([("a", "b")] * 5) == 0
