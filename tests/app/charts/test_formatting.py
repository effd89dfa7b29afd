"""Labels and order of fields and values."""

import pytest

from app.charts.formatting import (
    capitalize_first,
    field_labels,
    format_difference,
    format_number,
    format_setting_value,
    format_trial_settings,
    varied_axes,
)
from tests.sweep_snapshots import make_snapshot, make_trial


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"), (16.0, "16"), (0.00031622, "0.0003162"), (32, "32"), (True, "true"),
        (["query", "value"], "query+value"), ([0, 1], "0+1"), ({"a": 1}, '{"a": 1}'), ("x", "x"),
        (["mlp", "projection", "value", "key", "query"], "all"),
    ],
)  # fmt: skip
def test_display_value(value: object, expected: str) -> None:
    assert format_setting_value(value) == expected


def test_numbers_have_no_exponent() -> None:
    numbers = (0.0003, 0.43124, 16.0, 9999.4, 9999.6, 12345.0, 987654.3, -2e5, float("nan"))
    shown = ["0.0003", "0.4312", "16", "9999", "10,000", "12,345", "987,654", "-200,000", "nan"]
    assert [format_number(each) for each in numbers] == shown
    differences = [format_difference("rmse", each) for each in (0.12345, 1234.0, -1234.0)]
    assert differences == ["+0.123", "+1,234", "-1,234"]


def test_only_the_first_letter_changes() -> None:
    assert capitalize_first("macro F1 over r and C") == "Macro F1 over r and C"


def test_labels_are_short_unless_ambiguous() -> None:
    fields = ("method.r", "method.dropout", "optim.dropout")
    assert list(field_labels(fields).values()) == ["r", "method.dropout", "optim.dropout"]


def test_numbers_are_sorted_and_others_keep_their_order() -> None:
    trials = [
        make_trial(n, settings={"method.r": r, "method.alpha": 8.0, "method.targets": roles})
        for n, (r, roles) in enumerate([(16, ["value"]), (2, ["key"]), (16, ["key"])])
    ]
    r, targets = varied_axes(make_snapshot(*trials), trials)
    assert (r.label, r.tick_labels, r.numeric_values) == ("r", ("2", "16"), (2.0, 16.0))
    assert (targets.tick_labels, targets.numeric_values) == (("value", "key"), None)
    assert [r.value_index(each) for each in trials] == [1, 0, 1]


def test_a_field_missing_in_a_trial_is_not_numeric() -> None:
    trials = [make_trial(1, settings={"method.r": 8}), make_trial(2)]
    (axis,) = varied_axes(make_snapshot(*trials), trials)
    assert (axis.tick_labels, axis.numeric_values) == (("8", "-"), None)
    assert format_trial_settings(make_snapshot(fields=("method.r",)), trials[1]) == ["r = -"]
