import unicodedata
from collections import Counter
from random import Random

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from lora_core.data.rows import TextRow
from lora_core.data.split import (
    Splits,
    SplitSize,
    count_leaked,
    draw_splits,
    notes_on_prompt_format_and_leaks,
    stratified_subset,
)
from lora_core.data.stratify import (
    ProportionalStratification,
    group_rows_by_text,
    normalize_text,
    ungroup,
)
from lora_core.errors.data import TooFewRows
from lora_core.specs.data import Split

SIZES: dict[Split, SplitSize] = {Split.VALIDATION: 0.1, Split.TEST: 0.2}


def labeled_rows(labels: str, texts: list[str] | None = None) -> list[TextRow]:
    return [TextRow(i, texts[i] if texts else f"text {i}", label) for i, label in enumerate(labels)]


@st.composite
def datasets(draw_: st.DrawFn) -> list[TextRow]:
    """30 to 80 rows, three labels of unequal weight, many copies of the same texts."""
    n = draw_(st.integers(30, 80))
    variety = draw_(st.integers(20, 200))
    texts = st.integers(0, variety).map(lambda i: f" t\u00e9xt {i}" if i % 3 else f"te\u0301xt {i}")
    rows = draw_(st.lists(st.tuples(texts, st.sampled_from("aaaabbc")), min_size=n, max_size=n))
    return [TextRow(i, text, label) for i, (text, label) in enumerate(rows, start=1)]


def draw_or_reject(rows: list[TextRow], seed: int) -> dict[Split, list[TextRow]]:
    """Splits of the usual sizes; data that is too small is skipped."""
    try:
        return draw_splits(rows, SIZES, seed)
    except TooFewRows:
        reject()


@given(datasets(), st.integers(0, 2**32 - 1))
def test_splits_partition_rows_without_leaks(rows: list[TextRow], seed: int) -> None:
    parts = draw_or_reject(rows, seed)
    assert sorted(row.number for part in parts.values() for row in part) == [
        row.number for row in rows
    ]
    texts = {part: {normalize_text(row.text) for row in of} for part, of in parts.items()}
    assert not texts[Split.TRAIN] & texts[Split.TEST]
    assert not texts[Split.TRAIN] & texts[Split.VALIDATION]
    assert not texts[Split.VALIDATION] & texts[Split.TEST]
    assert count_leaked(parts) == 0


@given(datasets(), st.integers(0, 9), st.randoms(use_true_random=False))
def test_splits_ignore_row_order_and_unicode_form(
    rows: list[TextRow], seed: int, random: Random
) -> None:
    shuffled = [
        TextRow(row.number, unicodedata.normalize("NFC", row.text), row.label) for row in rows
    ]
    random.shuffle(shuffled)
    parts, again = draw_or_reject(rows, seed), draw_splits(shuffled, SIZES, seed)
    for part in Split:
        numbers = sorted(row.number for row in parts[part])
        assert numbers == sorted(row.number for row in again[part])


@given(
    st.text("abc", min_size=20, max_size=200).filter(lambda labels: len(set(labels)) > 1),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(0, 9),
)
def test_split_sizes_are_exact_and_stratified(
    labels: str, validation: int, test: int, seed: int
) -> None:
    rows = labeled_rows(labels)
    parts = draw_splits(rows, {Split.VALIDATION: validation, Split.TEST: test}, seed)
    assert (len(parts[Split.VALIDATION]), len(parts[Split.TEST])) == (validation, test)
    assert {row.label for row in parts[Split.TRAIN]} == set(labels)
    share = Counter(labels)
    for part in (Split.VALIDATION, Split.TEST):
        got = Counter(row.label for row in parts[part])
        for label in set(labels):
            assert abs(got[label] - len(parts[part]) * share[label] / len(rows)) <= 1


@given(st.text("ab", min_size=40, max_size=80), st.integers(2, 9), st.integers(0, 9))
def test_larger_subset_contains_the_smaller_one(labels: str, size: int, seed: int) -> None:
    rows = labeled_rows(labels + "ab")
    small = {row.number for row in stratified_subset(rows, size, of=len(rows), seed=seed)}
    large = {row.number for row in stratified_subset(rows, size + 5, of=len(rows), seed=seed)}
    assert len(small) == size
    assert small < large


@settings(max_examples=25)
@given(datasets(), st.integers(3, 20))
def test_subset_contains_every_label(rows: list[TextRow], size: int) -> None:
    try:
        kept = stratified_subset(rows, size, of=len(rows), seed=0)
    except TooFewRows:
        reject()
    assert len(kept) <= size
    by_text: dict[str, Counter[str]] = {}
    for row in rows:
        by_text.setdefault(normalize_text(row.text), Counter())[row.label] += 1
    clear = {next(iter(labels)) for labels in by_text.values() if len(labels) == 1}
    assert clear <= {row.label for row in kept}


def test_test_split_does_not_depend_on_validation_size() -> None:
    rows = labeled_rows("ab" * 100)
    small = draw_splits(rows, {Split.VALIDATION: 5, Split.TEST: 20}, 0)
    large = draw_splits(rows, {Split.VALIDATION: 50, Split.TEST: 20}, 0)
    assert small[Split.TEST] == large[Split.TEST]


def test_seed_changes_the_splits() -> None:
    rows = labeled_rows("ab" * 100)
    assert draw_splits(rows, SIZES, 0)[Split.TEST] != draw_splits(rows, SIZES, 1)[Split.TEST]


def test_splits_are_reproducible() -> None:
    parts = draw_splits(labeled_rows("ab" * 10), SIZES, 7)
    assert {part.value: [row.number for row in of] for part, of in parts.items()} == {
        "test": [1, 6, 0, 5],
        "validation": [10, 7],
        "train": [18, 2, 11, 9, 4, 12, 19, 15, 17, 3, 16, 13, 14, 8],
    }


def test_duplicates_stay_together() -> None:
    texts = [f"text {i // 4}" for i in range(80)]
    parts = draw_splits(labeled_rows("aabb" * 20, texts), SIZES, 0)
    for of in parts.values():
        assert len(of) % 4 == 0
        assert Counter(row.label for row in of)["a"] == len(of) / 2


@pytest.mark.parametrize(
    ("labels", "sizes"),
    [
        ("ab", SIZES),
        ("ab" * 10, {Split.TEST: 19, Split.VALIDATION: 1}),
        ("ab" * 10, {Split.TEST: 21}),
        ("ab" * 10, {Split.TEST: 0.99, Split.VALIDATION: 0.1}),
    ],
)
def test_too_few_rows_error_reports_the_request(labels: str, sizes: dict[Split, SplitSize]) -> None:
    with pytest.raises(TooFewRows, match=r"distinct texts are not enough for .* for test"):
        draw_splits(labeled_rows(labels), sizes, 0)


@pytest.mark.parametrize("labels", ["aac", "abbcd"])
def test_train_keeps_labels_that_no_text_has_mostly(labels: str) -> None:
    """Splits that need no such text in train are as they would be drawn without this rule."""
    others = [f"text {i}" for i in range(100)]
    rows = labeled_rows("ab" * 50 + labels, [*others, *["ambiguous"] * len(labels)])
    strata = ProportionalStratification({label: label for label in "abcd"})
    kept = 0
    for seed in range(20):
        parts = draw_splits(rows, SIZES, seed)
        assert {row.label for row in parts[Split.TRAIN]} == {row.label for row in rows}
        assert sum(map(len, parts.values())) == len(rows)
        assert abs(len(parts[Split.TEST]) - 0.2 * len(rows)) < len(labels)
        test, _ = strata.draw(group_rows_by_text(rows, seed), round(len(rows) / 5)) or ([], [])
        if any(group.rows[0].text == "ambiguous" for group in test):
            kept += 1
        else:
            assert ungroup(test) == parts[Split.TEST]
    assert 0 < kept < 20


def test_duplicates_of_one_text_cannot_be_split() -> None:
    with pytest.raises(TooFewRows, match="2 distinct texts"):
        draw_splits(labeled_rows("ab" * 30, ["same a", "same b"] * 30), SIZES, 0)


@pytest.mark.parametrize("size", [1, 41, 0.9])
def test_subset_size_must_be_feasible(size: SplitSize) -> None:
    with pytest.raises(TooFewRows, match="for train"):
        stratified_subset(labeled_rows("ab" * 20), size, of=60, seed=0)


def test_share_may_round_up() -> None:
    assert len(stratified_subset(labeled_rows("ab" * 20), 0.7, of=59, seed=0)) == 40


@pytest.mark.parametrize(
    ("leaked", "start"), [(1, "1 validation or test text also"), (1200, "1,200 validation or test")]
)
def test_a_run_warns_of_texts_that_leaked(leaked: int, start: str) -> None:
    splits = Splits(("a", "b"), (), (), (), leaked=leaked)
    [note] = notes_on_prompt_format_and_leaks(splits)
    assert (note.level, note.code, note.message.startswith(start)) == ("warning", "leaked", True)
    assert not [*notes_on_prompt_format_and_leaks(Splits(("a", "b"), (), (), ()))]
