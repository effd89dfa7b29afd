"""Pydantic base models and field types of requests and responses: text, slugs, metadata, times."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from lora_core.data.label_readers import normalize_label_name
from lora_core.specs.fields import SLUG_PATTERN

_SURROGATE = re.compile("[\ud800-\udfff]")


class RequestModel(BaseModel):
    """Base of request bodies: rejects unknown fields, NaN and infinity."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ResponseModel(BaseModel):
    """Base of response bodies. `model_validate` accepts a row; NaN is serialized as `null`."""

    model_config = ConfigDict(from_attributes=True, ser_json_inf_nan="null")


def reject_unstorable_text(text: str) -> str:
    """Return the text. Reject NUL characters and lone surrogates, which databases cannot store."""
    if "\x00" in text:
        raise PydanticCustomError("nul_character", "must not contain a NUL character")
    if _SURROGATE.search(text):
        raise PydanticCustomError("lone_surrogate", "must not contain a lone surrogate")
    return text


def to_storable_nfc(value: Any) -> Any:
    """Return text in Unicode form NFC. Raises `PydanticCustomError` if it cannot be stored."""
    if not isinstance(value, str):
        return value
    reject_unstorable_text(value)
    return unicodedata.normalize("NFC", value)


@dataclass(frozen=True, slots=True)
class CleanText:
    """`Annotated[str, CleanText(200)]`: text in Unicode form NFC that can be stored."""

    max_length: int
    min_length: int = 1

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        text_schema = core_schema.str_schema(max_length=self.max_length, min_length=self.min_length)
        return core_schema.no_info_before_validator_function(to_storable_nfc, text_schema)


def normalize_label(name: str) -> str:
    """Return a label as training reads it. Raises `PydanticCustomError` if it is blank."""
    normalized = normalize_label_name(name)
    if not normalized:
        raise PydanticCustomError("blank", "must not be blank")
    return normalized


Slug = Annotated[str, Field(pattern=SLUG_PATTERN)]


def uuid_or_not_found_validator(not_found: Callable[[str], Exception]) -> BeforeValidator:
    """Validate a UUID in a path. Text that is not a UUID raises the error that `not_found` makes,
    because no resource can have such an id."""

    def parse(text: str) -> UUID:
        try:
            return UUID(text)
        except ValueError as error:
            raise not_found(repr(text[:64])) from error

    return BeforeValidator(parse)


def _check_pair_count(pairs: dict[str, str]) -> dict[str, str]:
    if len(pairs) > 16:
        raise PydanticCustomError("too_many_pairs", "must have at most 16 pairs")
    return pairs


Metadata = Annotated[
    dict[Annotated[str, CleanText(64)], Annotated[str, CleanText(512, min_length=0)]],
    AfterValidator(_check_pair_count),
]


def format_rfc3339(seconds: float) -> str:
    """Format seconds since 1970 as UTC: `2026-03-01T12:00:00.000Z`."""
    time = datetime.fromtimestamp(seconds, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def timestamp_from_rfc3339(value: Any) -> Any:
    """Return the seconds since 1970 of a time that `format_rfc3339` formatted."""
    return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else value


Timestamp = Annotated[
    float,
    BeforeValidator(timestamp_from_rfc3339),
    PlainSerializer(format_rfc3339, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]


_BINARY = {"type": "string", "format": "binary"}
_OBJECT = {"type": "object", "additionalProperties": True}
_FILE_SCHEMAS: dict[str, dict[str, Any]] = {
    "application/octet-stream": _BINARY,
    "application/json": {"type": "array", "items": _OBJECT},
}


def file_response_openapi(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of a route that responds with a file in one of these types."""
    return {
        200: {
            "description": "The file.",
            "content": {
                media_type: {"schema": _FILE_SCHEMAS.get(media_type, {"type": "string"})}
                for media_type in media_types
            },
        }
    }


def multipart_file_openapi(description: str, **other_fields: Any) -> dict[str, Any]:
    """Return the OpenAPI description of a multipart form with one `file` and other fields."""
    fields = {name: _without_null(schema) for name, schema in other_fields.items()}
    file = {**_BINARY, "description": description}
    schema = {"type": "object", "required": ["file"], "properties": {"file": file, **fields}}
    form = {"multipart/form-data": {"schema": schema}}
    return {"requestBody": {"required": True, "content": form}}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a form field, which is text or omitted, and never null."""
    if "anyOf" not in schema:
        return schema
    (option,) = [each for each in schema["anyOf"] if each != {"type": "null"}]
    return {**option, **{name: schema[name] for name in schema.keys() - {"anyOf", "default"}}}
