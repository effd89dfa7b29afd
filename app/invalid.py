"""Bodies and parameters that do not fit, told without repeating what was sent.

FastAPI's own answer holds the input, and so fails on NaN, on numbers too large and on lone
surrogates.
"""

from dataclasses import asdict
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers
from starlette.types import Scope

from lora_core.specs.validation import Fault, faults

MOST_ERRORS = 50
WHOLE_BODY = {"model_attributes_type", "model_type", "dict_type", "dataclass_type", "bytes_type"}


class WrongForm(RequestValidationError):
    """Fields of a form that was read by hand, and so is of a kind that the route does not know."""

    def __init__(self, error: ValidationError, kind: type[BaseModel]) -> None:
        super().__init__(error.errors(include_url=False))
        self.kind = kind


Description = tuple[int, str, str, str, tuple[dict[str, str], ...]]


def describe_invalid(error: RequestValidationError, scope: Scope) -> Description:
    """(status, code, title, detail, errors by place)."""
    found = error.errors()
    if any(each["type"] == "json_invalid" for each in found):
        where = next(each["loc"][-1] for each in found if each["type"] == "json_invalid")
        detail = f"The body is not valid JSON: it breaks off or goes wrong at character {where}."
        return 400, "malformed_json", "The body is not JSON.", detail, ()
    if not _says_json(scope) and any(_is_whole_body(each) for each in found):
        detail = "Send the body as JSON with the header `Content-Type: application/json`."
        return 415, "unsupported_media_type", "The body is not marked as JSON.", detail, ()
    wrong = _faults(error, scope)
    detail = f"{wrong[0].at}: {wrong[0].message}."
    if len(wrong) > 1:
        detail += f" And {len(wrong) - 1} more."
    errors = tuple(asdict(fault) for fault in wrong[:MOST_ERRORS])
    return 422, "validation_failed", "The input does not fit.", detail, errors


def _says_json(scope: Scope) -> bool:
    kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json") or kind.startswith("multipart/")


def _is_whole_body(error: Any) -> bool:
    return tuple(error["loc"]) == ("body",) and error["type"] in WHOLE_BODY


def _faults(error: RequestValidationError, scope: Scope) -> list[Fault]:
    """`method.r` for the body; parameters say where they stand: `query.limit`."""
    if isinstance(error, WrongForm):
        return faults(error.errors(), error.kind)
    body, others = [], []
    for each in error.errors():
        place, *inside = each["loc"]
        if place == "body" and inside:
            body.append({**each, "loc": inside})
        else:
            others.append(each)
    field = getattr(scope.get("route"), "body_field", None)
    return faults(others, None) + faults(body, field.field_info.annotation if field else None)
