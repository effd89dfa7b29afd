"""Text notation of values: parsing and formatting."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sweeps.search_space import ALL_ROLES, format_values_or_range, parse_values_or_range

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.lists(st.text(), max_size=3),
)


@pytest.mark.parametrize(
    ("field", "values", "text"),
    [
        ("method.r", [1, 2, 4], "1,2,4"),
        ("method.alpha", [0.5, 1e-05], "0.5,1e-05"),
        ("method.head", ["train", "lora"], "train,lora"),
        ("method.targets", [["query", "value"], ALL_ROLES], "query+value,all"),
        ("method.layers", [[0, 1], None], "0+1,null"),
        ("base", ["1", "a, b"], '["1", "a, b"]'),
        ("stop.patience", [None, 3], "null,3"),
        ("method.dropout", {"low": 0.0, "high": 0.3}, "0.0..0.3"),
        (
            "optim.learning_rate",
            {"low": 1e-05, "high": 0.01, "log": True, "count": 5},
            "log:1e-05..0.01x5",
        ),
    ],
)
def test_values_are_formatted_as_they_are_typed(field: str, values: Any, text: str) -> None:
    assert format_values_or_range(field, values) == text
    assert parse_values_or_range(field, text) == values


@given(st.sampled_from(["method.r", "method.targets"]), st.lists(VALUES, min_size=1, max_size=4))
def test_formatted_values_are_parsed_back(field: str, values: list[Any]) -> None:
    text = format_values_or_range(field, values)
    assert "\n" not in text
    parsed = parse_values_or_range(field, text)
    assert json.dumps(parsed) == json.dumps(values)


@given(st.text(max_size=30))
def test_any_text_is_parsed_or_rejected(text: str) -> None:
    with suppress(ValueError):
        assert isinstance(parse_values_or_range("method.alpha", text), list | dict)


def test_json_nested_too_deeply_is_text() -> None:
    assert parse_values_or_range("method.r", "[" * 100_000) == ["[" * 100_000]
