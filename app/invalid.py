"""Bodies and parameters that do not fit, told without repeating what was sent.

FastAPI's own answer holds the input, and so fails on NaN, on numbers too large and on lone
surrogates.
"""

from collections.abc import Iterable
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.types import Scope

MOST_ERRORS = 50
WHOLE_BODY = {"model_attributes_type", "model_type", "dict_type", "dataclass_type", "bytes_type"}

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
    errors = tuple(
        {"at": _place(each["loc"]), "code": each["type"], "message": _capped(each["msg"], 300)}
        for each in found[:MOST_ERRORS]
    )
    first = errors[0]
    detail = f"{first['at']}: {first['message']}."
    if len(found) > 1:
        detail += f" And {len(found) - 1} more."
    return 422, "validation_failed", "The input does not fit.", detail, errors


def _says_json(scope: Scope) -> bool:
    kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json") or kind.startswith("multipart/")


def _is_whole_body(error: Any) -> bool:
    return tuple(error["loc"]) == ("body",) and error["type"] in WHOLE_BODY


def _place(location: Iterable[Any]) -> str:
    """`method.lora.r` for the body; parameters say where they stand: `query.limit`."""
    parts = [_capped(str(part), 64) for part in location]
    if parts[:1] == ["body"] and len(parts) > 1:
        parts = parts[1:]
    return ".".join(parts)


def _capped(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
