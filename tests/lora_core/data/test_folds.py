"""Folds: every text once, stratified, duplicates together, independent of row order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lora_core.data.split import Example, assign_folds
from lora_core.specs.method import NUM_FOLDS


def examples(labels: list[int], texts: list[str] | None = None) -> list[Example]:
    texts = texts or [f"text {i}" for i in range(len(labels))]
    return [Example(i, text, label) for i, (text, label) in enumerate(zip(texts, labels))]  # noqa: B905


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.integers(0, 5))
def test_folds_are_stratified(labels: list[int], seed: int) -> None:
    folds = assign_folds(examples(labels), seed)
    sizes = np.bincount(folds, minlength=NUM_FOLDS)
    assert sizes.sum() == len(labels)
    assert sizes.max() - sizes.min() <= 1
    for label in set(labels):
        of_label = np.bincount(folds[np.array(labels) == label], minlength=NUM_FOLDS)
        assert of_label.max() - of_label.min() <= 1


def test_row_order_does_not_change_the_folds() -> None:
    rows = examples([0, 1] * 20)
    folds = dict(zip((each.text for each in rows), assign_folds(rows, 1), strict=True))
    backwards = rows[::-1]
    assert list(assign_folds(backwards, 1)) == [folds[each.text] for each in backwards]


def test_duplicates_share_a_fold() -> None:
    texts = [f"text {i % 7}" for i in range(35)]
    folds = assign_folds(examples([i % 2 for i in range(35)], texts), 0)
    for text in set(texts):
        assert len({fold for fold, each in zip(folds, texts, strict=True) if each == text}) == 1


def test_seed_changes_the_folds() -> None:
    rows = examples([0, 1] * 30)
    assert list(assign_folds(rows, 0)) != list(assign_folds(rows, 1))
