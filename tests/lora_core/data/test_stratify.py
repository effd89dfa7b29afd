"""Splits of texts with several labels, or with numbers."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from random import Random

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from lora_core.data.rows import TextRow
from lora_core.data.split import (
    Example,
    assign_folds,
    draw_splits,
    stratified_subset,
)
from lora_core.data.stratify import (
    assign_iteratively,
    group_rows_by_text,
    normalize_text,
    quantile_bins,
)
from lora_core.errors.data import TooFewRows
from lora_core.specs.data import Split
from lora_core.specs.encoded_labels import decode_label_set, encode_label_set
from lora_core.specs.method import NUM_FOLDS

Rows = Sequence[TextRow]
SHARES = {"a": 0.5, "b": 0.2, "c": 0.1, "d": 0.02, "e": 0.01}


def random_rows(n: int, seed: int, shares: dict[str, float] = SHARES) -> list[TextRow]:
    random = Random(seed)
    return [
        TextRow(
            i,
            f"text {i}",
            encode_label_set([name for name, share in shares.items() if random.random() < share]),
        )
        for i in range(n)
    ]


def count_labels(rows: Rows) -> Counter[str]:
    return Counter(name for row in rows for name in decode_label_set(row.label))


def deviation(part: Rows, rows: Rows) -> float:
    """The sum over labels of how many rows the part has too many or too few."""
    of_all, of_part = count_labels(rows), count_labels(part)
    share = len(part) / len(rows)
    return sum(abs(of_part[name] - share * n) for name, n in of_all.items())


@pytest.mark.parametrize("seed", range(3))
def test_every_split_has_its_share_of_each_label(seed: int) -> None:
    rows = random_rows(1000, seed)
    splits = draw_splits(rows, {Split.VALIDATION: 0.1, Split.TEST: 0.2}, seed, "multi_label")
    assert [len(splits[split]) for split in Split] == [700, 100, 200]
    for part in splits.values():
        for name, n in count_labels(rows).items():
            assert abs(count_labels(part)[name] - n * len(part) / len(rows)) <= 1
    random = Random(seed)
    by_chance = [deviation(random.sample(rows, 200), rows) for _ in range(100)]
    assert deviation(splits[Split.TEST], rows) < min(by_chance)


def test_the_test_split_is_nearly_as_balanced_as_the_best_of_all() -> None:
    excess = []
    for seed in range(20):
        rows = random_rows(11, seed, {"a": 0.5, "b": 0.4, "c": 0.3})
        drawn = draw_splits(rows, {Split.TEST: 4}, 0, "multi_label")[Split.TEST]
        best = min(
            deviation(part, rows)
            for part in combinations(rows, 4)
            if count_labels([row for row in rows if row not in part]).keys()
            == count_labels(rows).keys()
        )
        excess.append(deviation(drawn, rows) - best)
    assert min(excess) >= 0
    assert np.mean(excess) < 0.3


@st.composite
def datasets(draw: st.DrawFn) -> list[TextRow]:
    """Rows with up to three labels, many of them copies of the same texts."""
    n = draw(st.integers(20, 60))
    texts = st.integers(0, draw(st.integers(10, 100))).map(lambda i: f" t\u00e9xt {i}")
    label_sets = st.sets(st.sampled_from("aaabbc")).map(encode_label_set)
    rows = draw(st.lists(st.tuples(texts, label_sets), min_size=n, max_size=n))
    return [TextRow(i, text, label) for i, (text, label) in enumerate(rows)]


@settings(deadline=None)
@given(datasets(), st.integers(0, 2**32 - 1))
def test_copies_stay_together_and_train_keeps_every_label(rows: list[TextRow], seed: int) -> None:
    try:
        splits = draw_splits(rows, {Split.VALIDATION: 0.1, Split.TEST: 0.2}, seed, "multi_label")
    except TooFewRows:
        reject()
    assert sorted(row.number for part in splits.values() for row in part) == list(range(len(rows)))
    texts = [{normalize_text(row.text) for row in part} for part in splits.values()]
    assert sum(map(len, texts)) == len(set.union(*texts))
    assert count_labels(splits[Split.TRAIN]).keys() == count_labels(rows).keys()
    copies = max(Counter(normalize_text(row.text) for row in rows).values())
    for split, share in ((Split.VALIDATION, 0.1), (Split.TEST, 0.2)):
        count = round(share * len(rows))
        assert count - copies < len(splits[split]) <= count
    shuffled = Random(seed).sample(rows, len(rows))
    again = draw_splits(shuffled, {Split.VALIDATION: 0.1, Split.TEST: 0.2}, seed, "multi_label")
    assert again == splits


def test_a_label_of_three_texts_is_in_train_and_test() -> None:
    rows = [TextRow(i, f"text {i}", '["rare"]' if i < 3 else "[]") for i in range(100)]
    for seed in range(20):
        splits = draw_splits(rows, {Split.TEST: 0.3}, seed, "multi_label")
        assert count_labels(splits[Split.TRAIN])["rare"] == 2
        assert count_labels(splits[Split.TEST])["rare"] == 1


def test_labels_without_room_in_train_are_refused() -> None:
    rows = [TextRow(i, f"text {i}", encode_label_set([str(i)])) for i in range(10)]
    with pytest.raises(TooFewRows, match=r"at least 10 for train \(one with each label\)"):
        draw_splits(rows, {Split.TEST: 1}, 0, "multi_label")
    with pytest.raises(TooFewRows, match=r"9 for train \(at least 10, one with each label\)"):
        stratified_subset(rows, 9, of=10, seed=0, task="multi_label")
    with pytest.raises(TooFewRows, match=r"^10 distinct texts .* at least 10 for train"):
        draw_splits([*rows, *rows], {Split.TEST: 1}, 0, "multi_label")
    same = encode_label_set(map(str, range(5)))  # one text has all five labels
    for label in ("[]", same):
        rows = [TextRow(i, f"text {i}", label) for i in range(3)]
        with pytest.raises(TooFewRows, match="at least 1 for train"):
            draw_splits(rows, {Split.TEST: 3}, 0, "multi_label")


def test_a_subset_has_its_share_of_each_label() -> None:
    rows = random_rows(1000, 0)
    subset = stratified_subset(rows, 300, of=1000, seed=0, task="multi_label")
    assert len(subset) == 300
    for name, n in count_labels(rows).items():
        assert abs(count_labels(subset)[name] - 0.3 * n) <= 1
    small = stratified_subset(rows, 5, of=1000, seed=0, task="multi_label")
    assert len(small) == 5
    assert count_labels(small).keys() == SHARES.keys()
    every = stratified_subset(rows, 1000, of=1000, seed=0, task="multi_label")
    assert sorted(row.number for row in every) == list(range(1000))


def test_a_text_that_fits_nowhere_goes_to_the_last_part() -> None:
    rows = [TextRow(i, "copies" if i < 4 else f"text {i}", '["a"]') for i in range(6)]
    groups = group_rows_by_text(rows, 0)
    parts = assign_iteratively(groups, [3, 3])
    assert sorted(parts) == [0, 1, 1]
    assert [parts[i] for i, group in enumerate(groups) if len(group.rows) == 4] == [1]


# -- Numbers --------------------------------------------------------------------------------------


def number_rows(numbers: Iterable[float]) -> list[TextRow]:
    return [TextRow(i, f"text {i}", repr(float(number))) for i, number in enumerate(numbers)]


@pytest.mark.parametrize("seed", range(3))
def test_every_split_has_its_share_of_each_range_of_numbers(seed: int) -> None:
    numbers = np.random.default_rng(seed).lognormal(size=1000)
    splits = draw_splits(
        number_rows(numbers), {Split.VALIDATION: 0.1, Split.TEST: 0.2}, seed, "regression"
    )
    assert [len(splits[split]) for split in Split] == [700, 100, 200]
    edges = np.quantile(numbers, np.arange(1, 10) / 10)
    for part in splits.values():
        ranges = np.searchsorted(edges, [float(row.label) for row in part], side="right")
        np.testing.assert_allclose(np.bincount(ranges), len(part) / 10, atol=1)


def test_equal_numbers_share_a_bin() -> None:
    bins = quantile_bins(["5.0"] * 900 + ["1.0"] * 50 + ["2.0"] * 50)
    assert len(set(bins.values())) <= 3
    assert set(quantile_bins(["1.0", "2.0"]).values()) == {"0"}


def test_few_numbers_can_be_split() -> None:
    splits = draw_splits(number_rows([1, 2, 3, 4]), {Split.TEST: 1}, 0, "regression")
    assert [len(part) for part in splits.values()] == [3, 1]
    with pytest.raises(TooFewRows, match="at least 1 for train"):
        draw_splits(number_rows([1, 2]), {Split.TEST: 2}, 0, "regression")


# -- Folds ----------------------------------------------------------------------------------------


def test_folds_have_their_share_of_each_label() -> None:
    rows = random_rows(500, 1)
    examples = [
        Example(row.number, row.text, tuple(map("abcde".index, decode_label_set(row.label))))
        for row in rows
    ]
    folds = assign_folds(examples, seed=3)
    assert np.bincount(folds).tolist() == [100] * NUM_FOLDS
    for name, n in count_labels(rows).items():
        for fold in range(NUM_FOLDS):
            part = [row for row, own in zip(rows, folds, strict=True) if own == fold]
            assert abs(count_labels(part)[name] - n / NUM_FOLDS) < 1
    assert (assign_folds(examples, seed=4) != folds).any()


def test_folds_have_their_share_of_numbers_and_keep_copies_together() -> None:
    numbers = np.random.default_rng(0).normal(size=400)
    examples = [Example(i, f"text {i // 2}", float(number)) for i, number in enumerate(numbers)]
    folds = assign_folds(examples, seed=0)
    assert (folds[::2] == folds[1::2]).all()
    assert np.bincount(folds).tolist() == [80] * NUM_FOLDS
    means = [numbers[folds == fold].mean() for fold in range(NUM_FOLDS)]
    assert max(means) - min(means) < 0.4
