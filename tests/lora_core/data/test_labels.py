from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_core.data.labels import check, label_names
from lora_core.data.rows import Row
from lora_core.errors.data import OneClass, UnseenLabel
from lora_core.specs.data import Split


def rows(labels: str) -> list[Row]:
    return [Row(number, f"text {number}", label) for number, label in enumerate(labels, start=1)]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["10", "9", "-1", "9"], ("-1", "9", "10")),
        (["pos", "neg", "neutral"], ("neg", "neutral", "pos")),
        (["10", "9", "none"], ("10", "9", "none")),
        (["true", "false"], ("false", "true")),
        (["01", "1", "0"], ("0", "01", "1")),
    ],
)
def test_whole_numbers_are_sorted_by_value_and_others_by_name(
    labels: list[str], names: tuple[str, ...]
) -> None:
    assert label_names(labels) == names


@given(st.lists(st.sampled_from(["3", "20", "-4", "a", "B"]), min_size=1))
def test_the_order_of_the_data_does_not_matter(labels: list[str]) -> None:
    assert label_names(labels) == label_names(labels[::-1]) == label_names(set(labels))


def test_one_label_everywhere_is_nothing_to_learn() -> None:
    with pytest.raises(OneClass, match="only the label 'a'"):
        check("f.csv", {Split.TRAIN: rows("aa"), Split.TEST: rows("a")})


@pytest.mark.parametrize(
    "parts",
    [
        {Split.TRAIN: rows("abab"), Split.TEST: rows("abcac")},
        {Split.TRAIN: rows("aaaa"), Split.TEST: rows("aacac")},
    ],
)
def test_a_label_that_train_never_shows_is_named_with_its_rows(
    parts: Mapping[Split, list[Row]],
) -> None:
    with pytest.raises(UnseenLabel, match=r"'c' is in the test part \(rows 3, 5\)"):
        check("f.csv", parts)


def test_labels_of_train_alone_are_the_names() -> None:
    assert check("f.csv", {Split.TRAIN: rows("cab"), Split.VALIDATION: rows("a")}) == (
        "a",
        "b",
        "c",
    )
