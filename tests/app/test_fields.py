"""Field types of requests and responses."""

import json
from typing import Annotated

import pytest
from pydantic import TypeAdapter, ValidationError

from app.http.fields import CleanText, Metadata, RequestModel, ResponseModel, Slug, Timestamp

NAME: TypeAdapter[str] = TypeAdapter(Annotated[str, CleanText(5)])
SLUG: TypeAdapter[str] = TypeAdapter(Slug)
PAIRS: TypeAdapter[dict[str, str]] = TypeAdapter(Metadata)


def test_text_is_normalized_before_its_length_is_checked() -> None:
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
def test_unstorable_text_is_rejected(text: object, code: str) -> None:
    with pytest.raises(ValidationError) as caught:
        NAME.validate_python(text)
    assert caught.value.errors(include_input=False)[0]["type"] == code


def test_json_schema_has_the_maximum_length() -> None:
    assert NAME.json_schema() == {"type": "string", "maxLength": 5, "minLength": 1}


@pytest.mark.parametrize("slug", ["a", "a1", "my-model-2", "a" * 64])
def test_valid_slugs(slug: str) -> None:
    assert SLUG.validate_python(slug) == slug


@pytest.mark.parametrize(
    "text", ["", "-a", "a-", "A", "a_b", "a b", "a" * 65, "../x", "$(id)", ";touch x", "a\n", "é"]
)
def test_invalid_slugs(text: str) -> None:
    with pytest.raises(ValidationError):
        SLUG.validate_python(text)


def test_metadata_limits() -> None:
    assert PAIRS.validate_python({"team": "nlp", "note": ""}) == {"team": "nlp", "note": ""}
    too_much = [{str(n): "x" for n in range(17)}, {"k" * 65: "x"}, {"k": "x" * 513}, {"": "x"}]
    for pairs in [*too_much, {"k": "\x00"}]:
        with pytest.raises(ValidationError):
            PAIRS.validate_python(pairs)


class Rate(RequestModel):
    rate: float


@pytest.mark.parametrize("body", ['{"rate": NaN}', '{"rate": 1e999}', '{"rate": 1, "more": 2}'])
def test_request_model_rejects_nan_infinity_and_unknown_fields(body: str) -> None:
    with pytest.raises(ValidationError):
        Rate.model_validate(json.loads(body))


class Seen(ResponseModel):
    at: Timestamp
    value: float


def test_response_model_serializes_times_as_utc_and_nan_as_null() -> None:
    shown = Seen(at=1_772_366_400.25, value=float("nan")).model_dump_json()
    assert shown == '{"at":"2026-03-01T12:00:00.250Z","value":null}'
    assert Seen.model_json_schema(mode="serialization")["properties"]["at"]["format"] == "date-time"


@pytest.mark.parametrize("at", ["2026-03-01T12:00:00.250Z", "2026-03-01T12:00:00.999Z"])
def test_timestamp_parses_what_it_serializes(at: str) -> None:
    seen = Seen.model_validate({"at": at, "value": 1})
    assert seen == Seen(at=seen.at, value=1)
    assert seen.model_dump(mode="json")["at"] == at


def test_timestamp_rejects_other_text() -> None:
    with pytest.raises(ValidationError):
        Seen.model_validate({"at": "soon", "value": 1})
