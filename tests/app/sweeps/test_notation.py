"""What varies, as it is typed and as it is written again."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sweeps.search_space import ALL_ROLES, read, written

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.lists(st.text(), max_size=3),
)


@pytest.mark.parametrize(
    ("field", "over", "typed"),
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
def test_it_is_written_as_it_is_typed(field: str, over: Any, typed: str) -> None:
    assert written(field, over) == typed
    assert read(field, typed) == over


@given(st.sampled_from(["method.r", "method.targets"]), st.lists(VALUES, min_size=1, max_size=4))
def test_whatever_is_written_is_read_again(field: str, over: list[Any]) -> None:
    typed = written(field, over)
    assert "\n" not in typed
    again = read(field, typed)
    assert json.dumps(again) == json.dumps(over)


@given(st.text(max_size=30))
def test_whatever_is_typed_is_read_or_refused(typed: str) -> None:
    with suppress(ValueError):
        assert isinstance(read("method.alpha", typed), list | dict)


def test_what_is_too_deep_is_a_text() -> None:
    assert read("method.r", "[" * 100_000) == ["[" * 100_000]
