"""Findings about sets of labels, numbers and ranks."""

import csv
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from lora_core.data.checks import check_data
from lora_core.data.data_report import DataReport, Severity
from lora_core.data.file_inspection import DatasetProfile, build_profile, read_contents
from lora_core.data.label_checks import measure_label_sets, measure_numbers
from lora_core.data.label_readers import LabelFormat, list_target_columns
from lora_core.data.learning_curve import add_learning_curve_to_report
from lora_core.data.rows import ColumnSelection, TextRow
from lora_core.specs.data import Split
from lora_core.specs.encoded_labels import encode_label_set
from lora_core.specs.task import SeveralTargetsSpec

SEPARATED = LabelFormat("multi_label", separator=";")
NUMBERS = LabelFormat("regression")
Cells = tuple[str, ...]  # text, label and perhaps split
Check = Callable[[Sequence[Cells], LabelFormat], tuple[DatasetProfile, DataReport]]


def sentence(i: int) -> str:
    """No two have a pair of words in common."""
    return " ".join(f"{word}{i}" for word in ("north", "river", "stone", "cloud", "paper", "light"))


@pytest.fixture
def check(tmp_path: Path) -> Check:
    def run(rows: Sequence[Cells], label_format: LabelFormat) -> tuple[DatasetProfile, DataReport]:
        path = tmp_path / "data.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label", "split")[: len(rows[0])], *rows])
        contents = read_contents(path, ColumnSelection(label_format=label_format))
        report = check_data(contents)
        assert report.more_labels in (
            None,
            add_learning_curve_to_report(report, contents).more_labels,
        )
        return build_profile(contents), report

    return run


def codes(report: DataReport) -> dict[str, Severity]:
    return {each.code: each.level for each in report.findings if each.code != "few_rows"}


def labeled(*label_sets: str, repeat: int = 12) -> list[Cells]:
    return [(sentence(i), label) for i, label in enumerate(label_sets * repeat)]


def test_sets_of_labels_are_described(check: Check) -> None:
    profile, report = check(labeled("a;b", "b", "c;a", ""), SEPARATED)
    assert profile.labels == {"a": 24, "b": 24, "c": 12}
    assert (profile.task, profile.label_separator) == ("multi_label", ";")
    assert report.balance is not None
    assert report.balance.labels["c"].share == 0.25
    assert report.balance.baseline == 0.25
    sets = report.label_sets
    assert sets is not None
    assert (sets.distinct, sets.mean_labels, sets.unlabeled) == (4, 1.25, 12)
    assert [(pair.labels, pair.count, pair.similarity) for pair in sets.pairs] == [
        (("a", "b"), 12, pytest.approx(1 / 3)),
        (("a", "c"), 12, 0.5),
    ]
    assert codes(report) == {"unlabeled_rows": Severity.INFO}
    assert report.more_labels is not None
    assert report.more_labels.code == "too_few"


def test_co_occurrence_is_that_of_the_product_of_indicators() -> None:
    random = np.random.default_rng(0)
    has = random.random((60, 4)) < 0.5
    rows = [
        TextRow(i, "t", encode_label_set([f"{j}" for j in np.flatnonzero(row)]))
        for i, row in enumerate(has)
    ]
    both = has.T.astype(int) @ has
    for pair in measure_label_sets(rows).pairs:
        i, j = map(int, pair.labels)
        assert pair.count == both[i, j]
        assert pair.similarity == pair.count / (has[:, i] | has[:, j]).sum()
    assert len(measure_label_sets(rows).pairs) == 6


@pytest.mark.parametrize(
    ("label_sets", "expected"),
    [
        (("a", "b"), {"one_label_each": Severity.INFO}),
        (("a;b", "a"), {"constant_labels": Severity.WARNING}),
        (
            ("a;b", "", ""),
            {"labels_together": Severity.WARNING, "unlabeled_rows": Severity.WARNING},
        ),
        (
            ("", "", "", "", "", "a"),
            {"imbalanced": Severity.WARNING, "unlabeled_rows": Severity.WARNING},
        ),
        (("A", "a;b", "b"), {"similar_labels": Severity.ERROR}),
    ],
)
def test_sets_of_labels_are_checked(
    check: Check, label_sets: tuple[str, ...], expected: dict[str, Severity]
) -> None:
    _, report = check(labeled(*label_sets), SEPARATED)
    assert codes(report) == expected


@pytest.mark.parametrize(
    ("labels", "separator"),
    [
        (("billing;urgent", "urgent;billing", "urgent"), ";"),
        (("a", "b", "c", "a|b", "b| c", "a|b|c"), "|"),
        (("a", "b", "a, b", "b, a"), ","),
        (("a", "b", "c", "a;b", "b;c"), None),
        (("Paris, France", "Lyon, France", "Rome, Italy"), None),
        (("a;", ";a", "a", "b"), None),
    ],
)
def test_sets_of_labels_that_are_read_as_names_are_reported(
    check: Check, labels: tuple[str, ...], separator: str | None
) -> None:
    _, report = check(labeled(*labels), LabelFormat())
    found = [each for each in report.findings if each.code != "few_rows"]
    assert [each.code for each in found] == ([] if separator is None else ["combined_labels"])
    if separator is not None:
        assert f"--task multi_label --label-separator {separator!r}" in found[0].advice
        _, as_sets = check(labeled(*labels), LabelFormat("multi_label", separator))
        assert "combined_labels" not in codes(as_sets)


def test_errors_of_formulas_are_reported(check: Check) -> None:
    _, report = check(labeled("a", "b", "#N/A"), LabelFormat())
    assert codes(report) == {"formula_errors": Severity.WARNING}
    [finding] = [each for each in report.findings if each.code == "formula_errors"]
    assert (finding.count, "#N/A" in finding.message) == (12, True)
    _, names = check(labeled("NA", "nan", "null", "None"), LabelFormat())
    assert codes(names) == {}


def test_invisible_characters_are_shown(check: Check) -> None:
    _, report = check(labeled("a", "a\u200b"), LabelFormat())
    [finding] = [each for each in report.findings if each.code == "similar_labels"]
    assert r"a and 'a\u200b'" in finding.message


def test_rare_and_missing_labels_are_found(check: Check) -> None:
    rows = labeled("a", "b;a", "")
    rows = [(*row, "train" if i < 24 else "test") for i, row in enumerate(rows)]
    rows[3] = (sentence(3), "rare;b", "train")
    profile, report = check(rows, SEPARATED)
    assert profile.splits == {Split.TRAIN: 24, Split.TEST: 12}
    assert codes(report) == {
        "rare_labels": Severity.WARNING,
        "labels_missing": Severity.WARNING,
        "unlabeled_rows": Severity.INFO,
    }
    assert "rare (in test)" in next(
        each.message for each in report.findings if each.code == "labels_missing"
    )


def test_copies_with_other_sets_of_labels_contradict_each_other(check: Check) -> None:
    rows = labeled("a;b", "b", "")
    rows += [(rows[0][0], "b;a"), (rows[1][0], "a")]
    profile, report = check(rows, SEPARATED)
    assert profile.conflicting_duplicates == 1
    [finding] = [each for each in report.findings if each.code == "conflicting_labels"]
    assert finding.message == "1 text with more than one set of labels."
    assert [row.label for row in finding.examples[0].rows] == ['["b"]', '["a"]']


# -- Numbers --------------------------------------------------------------------------------------


def numbered(numbers: Sequence[float]) -> list[Cells]:
    return [(sentence(i), repr(float(number))) for i, number in enumerate(numbers)]


def test_numbers_are_described(check: Check) -> None:
    numbers = np.random.default_rng(0).normal(10, 2, size=300)
    profile, report = check(numbered(numbers.tolist()), NUMBERS)
    assert (profile.labels, profile.task) == ({}, "regression")
    assert (report.balance, report.label_sets) == (None, None)
    found = report.numbers
    assert found is not None
    assert (found.minimum, found.maximum) == (numbers.min(), numbers.max())
    assert [found.mean, found.std] == pytest.approx([numbers.mean(), numbers.std()])
    assert found.quartiles == pytest.approx(np.percentile(numbers, [25, 50, 75]))
    assert sum(each.count for each in found.histogram) == found.distinct == 300
    assert report.findings == ()


@pytest.mark.parametrize("order", list(itertools.permutations((-1.2, 0.0, 1.2))))
def test_copies_contradict_by_their_most_distant_numbers(
    check: Check, order: tuple[float, ...]
) -> None:
    """Each is within one standard deviation of the middle one."""
    rows = numbered([-2.0, 2.0] * 20)
    profile, report = check([*rows, *((sentence(99), repr(each)) for each in order)], NUMBERS)
    assert profile.conflicting_duplicates == 1
    [finding] = [each for each in report.findings if each.code == "conflicting_labels"]
    shown = [float(row.label or "nan") for row in finding.examples[0].rows]
    assert shown == [each for each in order if each]


@pytest.mark.parametrize("numbers", [(1.0, 1.0), (0.3, 0.1 + 0.2), (1.7e18, 1.7e18 + 256)])
def test_equal_and_almost_equal_numbers_have_a_histogram(numbers: tuple[float, ...]) -> None:
    found = measure_numbers(np.array(numbers * 5))
    assert sum(each.count for each in found.histogram) == 10


def test_outliers_ranks_and_dominant_numbers_are_found(check: Check) -> None:
    numbers = [1.5, 2.5, 3.5, 4.5] * 10
    _, report = check(numbered([*numbers, 1000.0]), NUMBERS)
    assert codes(report) == {"outliers": Severity.WARNING}
    [finding] = [each for each in report.findings if each.code == "outliers"]
    assert [row.label for row in finding.examples[0].rows] == ["1000.0"]
    _, report = check(numbered([1, 2, 3, 4, 5] * 8), NUMBERS)
    assert codes(report) == {"ranks": Severity.INFO}
    _, report = check(numbered([0.5] * 36 + [1.5] * 4), NUMBERS)
    assert codes(report) == {"imbalanced": Severity.WARNING}


def test_numbers_outside_the_range_of_train_are_found(check: Check) -> None:
    rows = [(*row, "train") for row in numbered([1.5, 2.5, 3.5] * 8)]
    rows += [(sentence(100), "4.0", "test"), (sentence(101), "2", "test")]
    _, report = check(rows, NUMBERS)
    assert codes(report) == {"outside_range": Severity.WARNING}


def test_copies_contradict_each_other_if_their_numbers_are_far_apart(check: Check) -> None:
    rows = numbered([1.5, 2.5, 3.5, 4.5] * 8)
    _, report = check([*rows, (rows[0][0], "1.7"), (rows[1][0], "4.5")], NUMBERS)
    [finding] = [each for each in report.findings if each.code == "conflicting_labels"]
    assert finding.count == 1
    assert [row.label for row in finding.examples[0].rows] == ["2.5", "4.5"]


@pytest.mark.parametrize(
    ("numbers", "doubtful"),
    [
        (["1.234", "950", "2.500", "75"], True),
        (["-1.234", "-950"], True),
        (["1.234", "95", "2.500"], False),  # all may be small
        (["1.234", "950", "2.5"], False),
        (["0.850", "950"], False),
        (["1.2345", "950"], False),
        (["1234", "950"], False),
    ],
)
def test_points_that_may_separate_thousands(
    check: Check, numbers: list[str], doubtful: bool
) -> None:
    rows = [(sentence(i), number) for i, number in enumerate(numbers * 6)]
    _, report = check(rows, NUMBERS)
    found = [each for each in report.findings if each.code == "thousands_separator"]
    assert [each.level for each in found] == [Severity.WARNING] * doubtful
    if doubtful:
        assert found[0].count == 6 * sum("." in number for number in numbers)
        assert found[0].examples[0].rows[0].row == 1
        spec = SeveralTargetsSpec.model_validate({"targets": "n=regression:label,name=:label"})
        targets = LabelFormat("several_targets", targets=list_target_columns(spec))
        assert "thousands_separator" in codes(check(rows, targets)[1])


# -- Ranks ----------------------------------------------------------------------------------------


def test_ranks_that_are_no_numbers_are_pointed_out(check: Check) -> None:
    ranks = LabelFormat(ordered=True)
    profile, report = check(labeled("low", "medium", "high"), ranks)
    assert profile.ordered
    assert codes(report) == {"alphabetical_ranks": Severity.WARNING}
    assert "high < low < medium" in report.findings[0].message + report.findings[1].message
    profile, report = check(labeled("4.5", "10", "5"), ranks)
    assert list(profile.labels) == ["4.5", "5", "10"]
    assert codes(report) == {}
