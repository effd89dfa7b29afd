"""Suspect labels: the counting of confident learning, done by hand, and flipped labels found."""

import numpy as np
import pytest

from lora_core.suspect_labels import find_suspect_labels


def test_confident_contradictions_by_hand() -> None:
    probabilities = [
        [0.9, 0.1],  # thresholds: 0.7 of the first label, 0.6 of the second
        [0.8, 0.2],
        [0.4, 0.6],  # given the first, confidently the second
        [0.35, 0.65],
        [0.1, 0.9],
        [0.75, 0.25],  # given the second, confidently the first
    ]
    given = [0, 0, 0, 1, 1, 1]
    found = find_suspect_labels(probabilities, given)
    assert [(each.row, each.given, each.proposed) for each in found] == [(5, 1, 0), (2, 0, 1)]
    assert [each.confidence for each in found] == pytest.approx([0.75, 0.6])
    assert [each.score for each in found] == pytest.approx([0.5, 0.2])
    assert {each.label for each in found} == {None}


def test_unconfident_contradiction_is_not_suspect() -> None:
    # The label of the last text is less probable than the other one, which other texts have
    # far more clearly.
    found = find_suspect_labels(
        [[0.95, 0.05], [0.95, 0.05], [0.45, 0.55], [0.55, 0.45]], [0, 0, 1, 1]
    )
    assert found == []


def test_own_label_that_is_most_probable_is_not_suspect() -> None:
    probabilities = [[0.6, 0.4], [0.9, 0.1], [0.7, 0.3], [0.65, 0.35]]
    found = find_suspect_labels(probabilities, [0, 0, 1, 1])
    assert 0 not in {each.row for each in found}


def test_each_of_several_labels_is_checked_apart() -> None:
    rng = np.random.default_rng(0)
    p = rng.random((60, 3))
    given = (rng.random((60, 3)) < p).astype(int)
    found = find_suspect_labels(p, given)
    assert {each.label for each in found} == {0, 1, 2}
    for label in range(3):
        alone = find_suspect_labels(
            np.stack([1 - p[:, label], p[:, label]], axis=1), given[:, label]
        )
        assert [(each.row, each.score) for each in found if each.label == label] == [
            (each.row, each.score) for each in alone
        ]
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)


def test_flipped_labels_come_first() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, size=1000)
    p = rng.dirichlet(np.ones(4), size=1000) * 0.5
    p[np.arange(1000), truth] += 0.5
    flipped = rng.permutation(1000)[:50]
    given = truth.copy()
    given[flipped] = (truth[flipped] + 1 + rng.integers(0, 3, size=50)) % 4
    found = find_suspect_labels(p, given)[:50]
    assert np.isin([each.row for each in found], flipped).mean() > 0.8
    assert np.mean([each.proposed == truth[each.row] for each in found]) > 0.8


def test_label_without_texts_is_never_proposed() -> None:
    found = find_suspect_labels([[0.1, 0.1, 0.8], [0.2, 0.0, 0.8], [0.3, 0.7, 0.0]], [0, 0, 1])
    assert 2 not in {each.proposed for each in found}


def test_shapes_must_fit() -> None:
    with pytest.raises(ValueError, match="for each text"):
        find_suspect_labels([[0.5, 0.5]], [0, 1])
    with pytest.raises(ValueError, match="for each text"):
        find_suspect_labels([[0.5, 0.5]], [[0, 1, 1]])
