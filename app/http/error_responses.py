"""The only map from errors to answers.

Native routes answer `application/problem+json` (RFC 9457) with a stable `code`. The routes of the
predict dialect answer `{"error": …, "error_type": …, "code": …}`, which clients of
text-embeddings-inference and of the Hugging Face hub understand. No answer holds a stack trace,
SQL, or what the caller sent.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match
from starlette.types import Scope

from app.database import causes
from app.errors import AppError, StorageFull
from lora_core.atomic_files import is_no_room
from lora_core.errors import LoraCoreError
from lora_core.specs.validation import Fault, faults

INTERNAL = "internal_error"
RETRY_SECONDS = 5  # what a 503 tells unless its cause knows better
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
PREDICT_PATHS = ("/", "/predict", "/invocations", "/vertex", "/info", "/health", "/ping")
ERROR_TYPES = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict"} | {
    424: "Backend",
    429: "Overloaded",
    500: "Backend",
    503: "Unhealthy",
    504: "Timeout",
}
ERROR_TYPE_NAMES = {*ERROR_TYPES.values(), "Empty", "RateLimited", "Validation"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail", "instance", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string", "description": "The kind of problem."},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "Stable; programs go by this."},
        "detail": {"type": "string", "description": "What was wrong, where, and what to do."},
        "instance": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["at", "code", "message"],
                "properties": {
                    "at": {"type": "string", "examples": ["method.r"]},
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                },
            },
        },
    },
}
PREDICT_SCHEMA = {
    "type": "object",
    "required": ["error", "error_type", "code"],
    "properties": {
        "error": {"type": "string", "description": "What was wrong, where, and what to do."},
        "error_type": {"type": "string", "enum": sorted(ERROR_TYPE_NAMES)},
        "code": SCHEMA["properties"]["code"],
        "errors": SCHEMA["properties"]["errors"],
    },
}


def _refusals(media_type: str, schema: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    description = "Refused; `code` names the cause."
    return {"4XX": {"description": description, "content": {media_type: {"schema": schema}}}}


RESPONSES = _refusals("application/problem+json", SCHEMA)
PREDICT_RESPONSES = _refusals("application/json", PREDICT_SCHEMA)  # where `speaks_predict`


log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Problem:
    """What is told about an error, before it is put into a dialect."""

    status: int
    code: str
    title: str
    detail: str
    errors: tuple[dict[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


ProblemPage = Callable[[Request, Problem], Response]  # set by who makes pages


def install(app: FastAPI) -> None:
    """Answer every error that routes raise on purpose. The others end in `middleware.Faults`."""
    expected = (AppError, LoraCoreError, RequestValidationError, HTTPException, SQLAlchemyError)
    for kind in expected:
        app.add_exception_handler(kind, _handle)


async def _handle(request: Request, error: Exception) -> Response:
    return respond(request.scope, error)


def respond(scope: Scope, error: Exception) -> Response:
    """The answer to an error. The log tells what the answer must not."""
    problem = describe(error, scope)
    if problem.code == INTERNAL:
        log.error("unexpected_error", code=problem.code, exc_info=error)
    elif problem.status >= 500 or isinstance(error, SQLAlchemyError):
        log.warning("unavailable", code=problem.code, reason=str(error))
    return answer(scope, problem)


def answer(scope: Scope, problem: Problem) -> Response:
    """The problem in the dialect of the path; as a page to a person who goes somewhere."""
    headers = dict(problem.headers)
    page: ProblemPage | None = getattr(scope["app"].state, "problem_page", None)
    if page and scope["method"] == "GET" and "text/html" in Headers(scope=scope).get("accept", ""):
        return page(Request(scope), problem)
    path: str = scope["path"]
    if speaks_predict(path):
        body: dict[str, Any] = {
            "error": problem.detail,
            "error_type": _error_type(problem),
            "code": problem.code,
        }
        if problem.errors:
            body["errors"] = problem.errors
        return JSONResponse(_storable(body), problem.status, headers)
    body = {
        "type": f"urn:loraworks:problem:{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
        "instance": path[:200],
        "request_id": scope.get("state", {}).get("request_id", ""),
    }
    if problem.errors:
        body["errors"] = problem.errors
    return JSONResponse(_storable(body), problem.status, headers, "application/problem+json")


def speaks_predict(path: str) -> bool:
    """Whether errors of this path are told in the predict dialect."""
    return path in PREDICT_PATHS or path.startswith("/models/")


def _error_type(problem: Problem) -> str:
    if problem.code == "empty_input":
        return "Empty"
    if problem.code in ("key_overloaded", "quota_used"):
        return "RateLimited"
    return ERROR_TYPES.get(problem.status, "Validation")


def describe(error: Exception, scope: Scope) -> Problem:
    """What is told about an error. Anything unknown becomes `internal_error`."""
    match error:
        case AppError():
            return _from_app(error)
        case LoraCoreError():
            title = (type(error).__doc__ or error.code).splitlines()[0]
            return Problem(422, error.code, title, str(error))
        case RequestValidationError():
            status, code, title, detail, errors = describe_invalid(error, scope)
            return Problem(status, code, title, detail, errors)
        case HTTPException():
            return _from_router(error, scope)
        case OSError() if is_no_room(error):
            return _from_app(StorageFull())
        case SQLAlchemyError() if known := causes.cause(error):
            return _from_app(known)
        case _:
            return _internal(scope)


def _internal(scope: Scope) -> Problem:
    request_id = scope.get("state", {}).get("request_id", "")
    detail = f"The service made a mistake. Its log tells more under the request id {request_id}."
    return Problem(500, INTERNAL, "Internal error.", detail)


def _from_app(error: AppError) -> Problem:
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
    wait = error.detail.get("retry_after", RETRY_SECONDS if error.status == 503 else None)
    if wait is not None:  # seconds
        headers["Retry-After"] = str(wait)
    at = error.detail.get("at")
    errors = ({"at": str(at), "code": error.code, "message": str(error)},) if at else ()
    return Problem(error.status, error.code, error.title, str(error), errors, headers)


def _from_router(error: HTTPException, scope: Scope) -> Problem:
    """What the framework refuses by itself."""
    headers = dict(error.headers or {})
    match error.status_code:
        case 400:
            code, detail = "malformed_body", "The body cannot be read as what its type says."
        case 404:
            code, detail = (
                "not_found",
                "There is nothing at this address; /docs lists what there is.",
            )
        case 405:
            code, allowed = "method_not_allowed", _methods(scope)
            headers["Allow"] = ", ".join(allowed)
            detail = f"{scope['method']} is not possible here; use {' or '.join(allowed)}."
        case 408:
            code, detail = "body_too_slow", "The body came too slowly. Send it again, faster."
        case 413:
            code, detail = "body_too_large", f"The body is larger than {_limit(scope)} bytes."
        case _:
            code, detail = f"http_{error.status_code}", HTTPStatus(error.status_code).description
    title = f"{HTTPStatus(error.status_code).phrase}."
    return Problem(error.status_code, code, title, detail, headers=headers)


def _methods(scope: Scope) -> list[str]:
    """All that this address takes; the router's own answer names those of one route alone."""
    routes = scope["app"].routes
    return [
        method
        for method in METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    ]


def _limit(scope: Scope) -> str:
    return str(scope.get("starlette.max_body_size", "the allowed number of"))


def _storable(value: Any) -> Any:
    """Texts without lone surrogates, which have no UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_storable(name): _storable(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(each) for each in value]
    return value


# MERGED app.http.error_responses
# Bodies and parameters that do not fit, told without repeating what was sent.
#
# FastAPI's own answer holds the input, and so fails on NaN, on numbers too large and on lone
# surrogates.

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
