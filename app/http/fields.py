"""Types of what callers send and get: capped clean text, slugs, metadata, times."""

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

from lora_core.specs.patterns import SLUG

_SURROGATE = re.compile("[\ud800-\udfff]")


class Body(BaseModel):
    """What a caller sends: no unknown field, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class View(BaseModel):
    """What a caller gets. Can be made from a row with `model_validate`; NaN becomes `null`."""

    model_config = ConfigDict(from_attributes=True, ser_json_inf_nan="null")


def check_storable(text: str) -> None:
    """Refuses NUL and lone surrogates, which databases cannot keep."""
    if "\x00" in text:
        raise PydanticCustomError("nul_character", "must not contain a NUL character")
    if _SURROGATE.search(text):
        raise PydanticCustomError("lone_surrogate", "must not contain a lone surrogate")


def clean(value: Any) -> Any:
    """Text in Unicode form NFC, once it is storable."""
    if not isinstance(value, str):
        return value
    check_storable(value)
    return unicodedata.normalize("NFC", value)


@dataclass(frozen=True, slots=True)
class Text:
    """`Annotated[str, Text(200)]`: clean text of at most so many characters."""

    max_length: int
    min_length: int = 1

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        capped = core_schema.str_schema(max_length=self.max_length, min_length=self.min_length)
        return core_schema.no_info_before_validator_function(clean, capped)


Slug = Annotated[str, Field(pattern=SLUG)]


def id_or(absent: Callable[[str], Exception]) -> BeforeValidator:
    """An id in an address; what cannot be one names nothing either: raises what `absent` makes."""

    def parse(text: str) -> UUID:
        try:
            return UUID(text)
        except ValueError as error:
            raise absent(repr(text[:64])) from error

    return BeforeValidator(parse)


def _few(pairs: dict[str, str]) -> dict[str, str]:
    if len(pairs) > 16:
        raise PydanticCustomError("too_many_pairs", "must have at most 16 pairs")
    return pairs


Metadata = Annotated[
    dict[Annotated[str, Text(64)], Annotated[str, Text(512, min_length=0)]], AfterValidator(_few)
]


def rfc3339(seconds: float) -> str:
    """Seconds since 1970 as UTC text: `2026-03-01T12:00:00.000Z`."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


Timestamp = Annotated[
    float,
    PlainSerializer(rfc3339, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]


def file_form(description: str, **others: Any) -> dict[str, Any]:
    """How the API's description tells of a body that is a form with one `file` and other fields."""
    file = {"type": "string", "format": "binary", "description": description}
    schema = {"type": "object", "required": ["file"], "properties": {"file": file, **others}}
    form = {"multipart/form-data": {"schema": schema}}
    return {"requestBody": {"required": True, "content": form}}
