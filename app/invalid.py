"""Bodies and parameters that do not fit, told without repeating what was sent.

FastAPI's own answer holds the input, and so fails on NaN, on numbers too large and on lone
surrogates.
"""

import re
from collections.abc import Iterable
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.types import Scope

MOST_ERRORS = 50
WHOLE_BODY = {"model_attributes_type", "model_type", "dict_type", "dataclass_type", "bytes_type"}

# What pydantic puts between the names of fields: the arm of a union, or that a key is meant.
_NO_FIELD = re.compile(r"constrained-\w+|(dict|list|tuple)\[.*\]|\[key\]")

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
    causes = _causes([_entry(each) for each in found])
    errors = tuple(causes[:MOST_ERRORS])
    first = errors[0]
    detail = f"{first['at']}: {first['message']}."
    if len(causes) > 1:
        detail += f" And {len(causes) - 1} more."
    return 422, "validation_failed", "The input does not fit.", detail, errors


def _entry(error: Any) -> dict[str, str]:
    """Place, code and message of one error."""
    at, message = _place(error["loc"]), error["msg"].removeprefix("Value error, ")
    match error["type"]:
        case "union_tag_invalid":
            at, message = f"{at}.type", f"Input should be one of {error['ctx']['expected_tags']}"
        case "union_tag_not_found":
            at, message = f"{at}.type", "Field required"
    return {"at": at, "code": error["type"], "message": _capped(message, 300)}


def _causes(errors: list[dict[str, str]]) -> list[dict[str, str]]:
    """Without those that only follow from an error further in: an empty list of wrong entries."""
    parents: set[str] = set()
    for error in errors:
        parts = error["at"].split(".")
        parents.update(".".join(parts[:length]) for length in range(1, len(parts)))
    return [error for error in errors if error["at"] not in parents]


def _says_json(scope: Scope) -> bool:
    kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json") or kind.startswith("multipart/")


def _is_whole_body(error: Any) -> bool:
    return tuple(error["loc"]) == ("body",) and error["type"] in WHOLE_BODY


def _place(location: Iterable[Any]) -> str:
    """`method.lora.r` for the body; parameters say where they stand: `query.limit`."""
    parts = [str(part) for part in location]
    if parts[:1] == ["body"] and len(parts) > 1:
        parts = parts[1:]
    return ".".join(_capped(part, 64) for part in parts if not _NO_FIELD.fullmatch(part))


def _capped(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
