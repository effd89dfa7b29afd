"""Types of what callers send and get."""

import json
from typing import Annotated

import pytest
from pydantic import TypeAdapter, ValidationError

from app.http.fields import Body, Metadata, Slug, Text, Timestamp, View

NAME: TypeAdapter[str] = TypeAdapter(Annotated[str, Text(5)])
SLUG: TypeAdapter[str] = TypeAdapter(Slug)
PAIRS: TypeAdapter[dict[str, str]] = TypeAdapter(Metadata)


def test_text_is_brought_into_one_form_before_it_is_measured() -> None:
    assert NAME.validate_python("e\u0301" * 5) == "é" * 5


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a\x00", "nul_character"),
        ("a\ud800", "lone_surrogate"),
        ("abcdef", "string_too_long"),
        ("", "string_too_short"),
        (5, "string_type"),
    ],
)
def test_text_that_cannot_be_kept_is_refused(text: object, code: str) -> None:
    with pytest.raises(ValidationError) as caught:
        NAME.validate_python(text)
    assert caught.value.errors(include_input=False)[0]["type"] == code


def test_the_cap_of_a_text_is_in_its_json_schema() -> None:
    assert NAME.json_schema() == {"type": "string", "maxLength": 5, "minLength": 1}


@pytest.mark.parametrize("slug", ["a", "a1", "my-model-2", "a" * 64])
def test_slugs(slug: str) -> None:
    assert SLUG.validate_python(slug) == slug


@pytest.mark.parametrize(
    "text", ["", "-a", "a-", "A", "a_b", "a b", "a" * 65, "../x", "$(id)", ";touch x", "a\n", "é"]
)
def test_what_is_no_slug(text: str) -> None:
    with pytest.raises(ValidationError):
        SLUG.validate_python(text)


def test_metadata_has_few_short_pairs() -> None:
    assert PAIRS.validate_python({"team": "nlp", "note": ""}) == {"team": "nlp", "note": ""}
    too_much = [{str(n): "x" for n in range(17)}, {"k" * 65: "x"}, {"k": "x" * 513}, {"": "x"}]
    for pairs in [*too_much, {"k": "\x00"}]:
        with pytest.raises(ValidationError):
            PAIRS.validate_python(pairs)


class Rate(Body):
    rate: float


@pytest.mark.parametrize("body", ['{"rate": NaN}', '{"rate": 1e999}', '{"rate": 1, "more": 2}'])
def test_a_body_has_no_nan_no_infinity_and_no_unknown_field(body: str) -> None:
    with pytest.raises(ValidationError):
        Rate.model_validate(json.loads(body))


class Seen(View):
    at: Timestamp
    value: float


def test_times_are_shown_as_utc_text_and_nan_as_null() -> None:
    shown = Seen(at=1_772_366_400.25, value=float("nan")).model_dump_json()
    assert shown == '{"at":"2026-03-01T12:00:00.250Z","value":null}'
    assert Seen.model_json_schema(mode="serialization")["properties"]["at"]["format"] == "date-time"
