"""Folds: every text once, labels in balance, copies together, whatever the order of the file."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lora_core.data.folds import fold_of
from lora_core.data.records import Example
from lora_core.specs.method import FOLDS


def examples(labels: list[int], texts: list[str] | None = None) -> list[Example]:
    texts = texts or [f"text {i}" for i in range(len(labels))]
    return [Example(i, text, label) for i, (text, label) in enumerate(zip(texts, labels))]  # noqa: B905


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.integers(0, 5))
def test_labels_are_dealt_evenly(labels: list[int], seed: int) -> None:
    folds = fold_of(examples(labels), seed)
    sizes = np.bincount(folds, minlength=FOLDS)
    assert sizes.sum() == len(labels)
    assert sizes.max() - sizes.min() <= 1
    for label in set(labels):
        of_label = np.bincount(folds[np.array(labels) == label], minlength=FOLDS)
        assert of_label.max() - of_label.min() <= 1


def test_the_order_of_the_file_does_not_matter() -> None:
    rows = examples([0, 1] * 20)
    folds = dict(zip((each.text for each in rows), fold_of(rows, 1), strict=True))
    backwards = rows[::-1]
    assert list(fold_of(backwards, 1)) == [folds[each.text] for each in backwards]


def test_copies_are_never_on_both_sides() -> None:
    texts = [f"text {i % 7}" for i in range(35)]
    folds = fold_of(examples([i % 2 for i in range(35)], texts), 0)
    for text in set(texts):
        assert len({fold for fold, each in zip(folds, texts, strict=True) if each == text}) == 1


def test_another_seed_deals_anew() -> None:
    rows = examples([0, 1] * 30)
    assert list(fold_of(rows, 0)) != list(fold_of(rows, 1))
