"""Validation errors name the field as the author wrote it."""

from typing import Any, Literal

import pytest
from pydantic import Field, ValidationError

from lora_core.specs.data import DataSpec
from lora_core.specs.fields import FrozenModel, Int
from lora_core.specs.method import MethodSpec
from lora_core.specs.validation_problems import field_problems, first_problem_location_and_message


class Plan(FrozenModel):
    """Unions in every position, next to fields with the names of their tags."""

    type: Literal["plan"] = "plan"
    first: MethodSpec | None = None
    all: tuple[MethodSpec, ...] = ()
    named: dict[str, MethodSpec] = Field(default_factory=dict)
    data: DataSpec = DataSpec()
    lora: Int = Field(default=1, ge=1)


def refused(body: dict[str, Any]) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Plan.model_validate(body)
    return caught.value


@pytest.mark.parametrize(
    ("body", "at", "message"),
    [
        ({"first": {"type": "lora", "r": 0}}, "first.r", "must be at least 1"),
        ({"all": [{"type": "full"}, {"type": "lora", "r": 0}]}, "all.1.r", "must be at least 1"),
        ({"named": {"lora": {"type": "lora", "r": 0}}}, "named.lora.r", "must be at least 1"),
        ({"named": {"a": {}}}, "named.a.type", "is required"),
        ({"lora": 0}, "lora", "must be at least 1"),
        ({"plan": 1}, "plan", "unknown field (known fields: type, first, all, named, data, lora)"),
        ({"firsts": 1}, "firsts", "unknown field (did you mean first?)"),
        ({"data": {"split_seed": 2**32}}, "data.split_seed", "must be less than 4,294,967,296"),
        ({"data": {"max_length": 8.5}}, "data.max_length", "not a number with a decimal point"),
        ({"data": {"max_length": True}}, "data.max_length", "not true or false"),
        ({"data": {"text_column": "\0"}}, "data.text_column", "must not contain a NUL character"),
        ({"data": {"source": []}}, "data.source", "must be a string or an object, not a list"),
        ({"data": {"train_size": 1.5}}, "data.train_size", "must be an integer or less than 1"),
        ({"data": "imdb"}, "data", "must be an object, not a string"),
    ],
)
def test_error_location_matches_the_input(body: dict[str, Any], at: str, message: str) -> None:
    place, fault = first_problem_location_and_message(refused(body), Plan)
    assert place == at
    assert message in fault


def test_each_field_is_reported_once_without_follow_up_errors() -> None:
    error = refused({"first": {"type": "lora", "targets": ["knee"]}, "data": {"test_size": 0}})
    assert [(fault.at, fault.code) for fault in field_problems(error.errors(), Plan)] == [
        ("first.targets.0", "enum"),
        ("data.test_size", "greater_than_equal"),
    ]
