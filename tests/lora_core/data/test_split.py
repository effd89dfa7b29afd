import unicodedata
from collections import Counter
from random import Random

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from lora_core.data.rows import Row
from lora_core.data.split import Size, cap, draw, leaked, normalised
from lora_core.errors.data import TooFewRows
from lora_core.specs.data import Split

SIZES: dict[Split, Size] = {Split.VALIDATION: 0.1, Split.TEST: 0.2}


def made(labels: str, texts: list[str] | None = None) -> list[Row]:
    return [Row(i, texts[i] if texts else f"text {i}", label) for i, label in enumerate(labels)]


@st.composite
def data_sets(draw_: st.DrawFn) -> list[Row]:
    """30 to 80 rows, three labels of unequal weight, many copies of the same texts."""
    n = draw_(st.integers(30, 80))
    variety = draw_(st.integers(20, 200))
    texts = st.integers(0, variety).map(lambda i: f" t\u00e9xt {i}" if i % 3 else f"te\u0301xt {i}")
    rows = draw_(st.lists(st.tuples(texts, st.sampled_from("aaaabbc")), min_size=n, max_size=n))
    return [Row(i, text, label) for i, (text, label) in enumerate(rows, start=1)]


def drawn(rows: list[Row], seed: int) -> dict[Split, list[Row]]:
    """Parts of the usual sizes; data that is too small for them is passed over."""
    try:
        return draw(rows, SIZES, seed)
    except TooFewRows:
        reject()


@given(data_sets(), st.integers(0, 2**32 - 1))
def test_every_row_is_in_one_part_and_no_text_in_two(rows: list[Row], seed: int) -> None:
    parts = drawn(rows, seed)
    assert sorted(row.number for part in parts.values() for row in part) == [
        row.number for row in rows
    ]
    texts = {part: {normalised(row.text) for row in of} for part, of in parts.items()}
    assert not texts[Split.TRAIN] & texts[Split.TEST]
    assert not texts[Split.TRAIN] & texts[Split.VALIDATION]
    assert not texts[Split.VALIDATION] & texts[Split.TEST]
    assert leaked(parts) == 0


@given(data_sets(), st.integers(0, 9), st.randoms(use_true_random=False))
def test_row_order_and_unicode_form_do_not_matter(
    rows: list[Row], seed: int, random: Random
) -> None:
    shuffled = [Row(row.number, unicodedata.normalize("NFC", row.text), row.label) for row in rows]
    random.shuffle(shuffled)
    parts, again = drawn(rows, seed), draw(shuffled, SIZES, seed)
    for part in Split:
        numbers = sorted(row.number for row in parts[part])
        assert numbers == sorted(row.number for row in again[part])


@given(
    st.text("abc", min_size=20, max_size=200).filter(lambda labels: len(set(labels)) > 1),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(0, 9),
)
def test_counts_are_exact_and_labels_keep_their_share(
    labels: str, validation: int, test: int, seed: int
) -> None:
    rows = made(labels)
    parts = draw(rows, {Split.VALIDATION: validation, Split.TEST: test}, seed)
    assert (len(parts[Split.VALIDATION]), len(parts[Split.TEST])) == (validation, test)
    assert {row.label for row in parts[Split.TRAIN]} == set(labels)
    share = Counter(labels)
    for part in (Split.VALIDATION, Split.TEST):
        got = Counter(row.label for row in parts[part])
        for label in set(labels):
            assert abs(got[label] - len(parts[part]) * share[label] / len(rows)) <= 1


@given(st.text("ab", min_size=40, max_size=80), st.integers(2, 9), st.integers(0, 9))
def test_a_larger_training_set_contains_the_smaller_one(labels: str, size: int, seed: int) -> None:
    rows = made(labels + "ab")
    small = {row.number for row in cap(rows, size, of=len(rows), seed=seed)}
    large = {row.number for row in cap(rows, size + 5, of=len(rows), seed=seed)}
    assert len(small) == size
    assert small < large


@settings(max_examples=25)
@given(data_sets(), st.integers(3, 20))
def test_a_capped_part_shows_every_label(rows: list[Row], size: int) -> None:
    try:
        kept = cap(rows, size, of=len(rows), seed=0)
    except TooFewRows:
        reject()
    assert len(kept) <= size
    by_text: dict[str, Counter[str]] = {}
    for row in rows:
        by_text.setdefault(normalised(row.text), Counter())[row.label] += 1
    clear = {next(iter(labels)) for labels in by_text.values() if len(labels) == 1}
    assert clear <= {row.label for row in kept}


def test_the_test_part_does_not_depend_on_the_size_of_validation() -> None:
    rows = made("ab" * 100)
    small = draw(rows, {Split.VALIDATION: 5, Split.TEST: 20}, 0)
    large = draw(rows, {Split.VALIDATION: 50, Split.TEST: 20}, 0)
    assert small[Split.TEST] == large[Split.TEST]


def test_the_seed_decides() -> None:
    rows = made("ab" * 100)
    assert draw(rows, SIZES, 0)[Split.TEST] != draw(rows, SIZES, 1)[Split.TEST]


def test_the_parts_are_the_same_on_every_machine() -> None:
    parts = draw(made("ab" * 10), SIZES, 7)
    assert {part.value: [row.number for row in of] for part, of in parts.items()} == {
        "test": [1, 6, 0, 5],
        "validation": [10, 7],
        "train": [18, 2, 11, 9, 4, 12, 19, 15, 17, 3, 16, 13, 14, 8],
    }


def test_copies_stay_together_whatever_their_labels() -> None:
    texts = [f"text {i // 4}" for i in range(80)]
    parts = draw(made("aabb" * 20, texts), SIZES, 0)
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
def test_too_few_rows_are_said_with_what_was_wanted(labels: str, sizes: dict[Split, Size]) -> None:
    with pytest.raises(TooFewRows, match=r"distinct texts cannot give .* for test"):
        draw(made(labels), sizes, 0)


def test_one_text_many_times_cannot_be_divided() -> None:
    with pytest.raises(TooFewRows, match="2 distinct texts"):
        draw(made("ab" * 30, ["same a", "same b"] * 30), SIZES, 0)


@pytest.mark.parametrize("size", [1, 41, 0.9])
def test_a_cap_must_be_within_what_there_is(size: Size) -> None:
    with pytest.raises(TooFewRows, match="for train"):
        cap(made("ab" * 20), size, of=60, seed=0)


def test_a_share_may_round_up_over_what_is_left() -> None:
    assert len(cap(made("ab" * 20), 0.7, of=59, seed=0)) == 40
