from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_core.data.rows import TextRow
from lora_core.data.split import collect_and_check_label_names, sort_label_names
from lora_core.errors.data import SingleClass, UnseenLabel
from lora_core.specs.data import Split


def rows(labels: str) -> list[TextRow]:
    return [
        TextRow(number, f"text {number}", label) for number, label in enumerate(labels, start=1)
    ]


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
def test_integer_labels_are_sorted_by_value(labels: list[str], names: tuple[str, ...]) -> None:
    assert sort_label_names(labels) == names


@given(st.lists(st.sampled_from(["3", "20", "-4", "a", "B"]), min_size=1))
def test_label_order_does_not_depend_on_the_data(labels: list[str]) -> None:
    assert (
        sort_label_names(labels) == sort_label_names(labels[::-1]) == sort_label_names(set(labels))
    )


def test_single_label_is_refused() -> None:
    with pytest.raises(SingleClass, match="only the label 'a'"):
        collect_and_check_label_names("f.csv", {Split.TRAIN: rows("aa"), Split.TEST: rows("a")})


@pytest.mark.parametrize(
    "parts",
    [
        {Split.TRAIN: rows("abab"), Split.TEST: rows("abcac")},
        {Split.TRAIN: rows("aaaa"), Split.TEST: rows("aacac")},
    ],
)
def test_unseen_label_is_reported_with_its_rows(
    parts: Mapping[Split, list[TextRow]],
) -> None:
    with pytest.raises(UnseenLabel, match=r"'c' occurs in the test split \(rows 3, 5\)"):
        collect_and_check_label_names("f.csv", parts)


def test_label_names_come_from_train() -> None:
    assert collect_and_check_label_names(
        "f.csv", {Split.TRAIN: rows("cab"), Split.VALIDATION: rows("a")}
    ) == (
        "a",
        "b",
        "c",
    )
