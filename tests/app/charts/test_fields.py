"""How fields and values are called and ordered."""

import pytest

from app.charts.fields import labels, settings, text, varied
from tests.boards import board, cell


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"), (16.0, "16"), (0.00031622, "0.0003162"), (32, "32"), (True, "true"),
        (["query", "value"], "query+value"), ([0, 1], "0+1"), ({"a": 1}, '{"a": 1}'), ("x", "x"),
        (["mlp", "projection", "value", "key", "query"], "all"),
    ],
)  # fmt: skip
def test_values_are_read(value: object, expected: str) -> None:
    assert text(value) == expected


def test_names_are_short_unless_two_are_the_same() -> None:
    fields = ("method.r", "method.dropout", "optim.dropout")
    assert list(labels(fields).values()) == ["r", "method.dropout", "optim.dropout"]


def test_numbers_ascend_and_others_stay_in_their_order() -> None:
    cells = [
        cell(n, settings={"method.r": r, "method.alpha": 8.0, "method.targets": roles})
        for n, (r, roles) in enumerate([(16, ["value"]), (2, ["key"]), (16, ["key"])])
    ]
    r, targets = varied(board(*cells), cells)
    assert (r.label, r.texts, r.numbers) == ("r", ("2", "16"), (2.0, 16.0))
    assert (targets.texts, targets.numbers) == (("value", "key"), None)
    assert [r.position(each) for each in cells] == [1, 0, 1]


def test_a_field_that_is_missing_somewhere_is_no_number() -> None:
    cells = [cell(1, settings={"method.r": 8}), cell(2)]
    (axis,) = varied(board(*cells), cells)
    assert (axis.texts, axis.numbers) == (("8", "-"), None)
    assert settings(board(fields=("method.r",)), cells[1]) == ["r = -"]
