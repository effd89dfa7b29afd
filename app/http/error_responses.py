"""Turns exceptions into HTTP responses.

Native routes respond with `application/problem+json` (RFC 9457) and a stable `code`. Routes of the
predict format respond with `{"error": …, "error_type": …, "code": …}`, which clients of
text-embeddings-inference and of the Hugging Face Hub understand. Routes of the OpenAI API respond
with `{"error": {"message", "type", "param", "code"}}`, and those of the Mistral API have these
fields in the body itself. No response contains a traceback, SQL, or the caller's input. FastAPI's
own validation response repeats the input, and so fails on NaN, on numbers that are too large and on
lone surrogates.
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

from app.database import errors as database_errors
from app.errors import AppError, InsufficientStorage
from app.http.dependencies import get_app_state
from lora_core.atomic_files import is_disk_full
from lora_core.errors import LoraCoreError
from lora_core.specs.validation_problems import FieldProblem, field_problems

_INTERNAL_ERROR = "internal_error"
RETRY_AFTER_SECONDS = 5  # the default for a 503
HTTP_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
OPENAI_PREFIX = "/openai/"
MISTRAL_PREFIX = "/mistral/"
# Clients of OpenAI know no other status of a rejected body, and read 424 as a client error.
_OPENAI_STATUS = {422: 400, 424: 500}
_MISTRAL_STATUS = {424: 500}
PREDICT_PATHS = (
    *("/", "/predict", "/invocations", "/vertex", "/rerank"),
    *("/info", "/health", "/ping"),
)
_ERROR_TYPES = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict"} | {
    424: "Backend",
    429: "Overloaded",
    500: "Backend",
    503: "Unhealthy",
    504: "Timeout",
}
_ERROR_TYPE_NAMES = {*_ERROR_TYPES.values(), "Empty", "RateLimited", "Validation"}
PROBLEM_SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "description": "Why a request failed, as in RFC 9457.",
    "type": "object",
    "required": ["type", "title", "status", "code", "detail", "instance", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string", "description": "Summary of the kind of problem."},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "Stable, for programs."},
        "detail": {"type": "string", "description": "What is wrong, where, and how to fix it."},
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
PREDICT_ERROR_SCHEMA: dict[str, Any] = {
    "title": "PredictError",
    "description": "Why a request failed, for clients of text-embeddings-inference and the hub.",
    "type": "object",
    "required": ["error", "error_type", "code"],
    "properties": {
        "error": {"type": "string", "description": "What is wrong, where, and how to fix it."},
        "error_type": {"type": "string", "enum": sorted(_ERROR_TYPE_NAMES)},
        "code": PROBLEM_SCHEMA["properties"]["code"],
        "errors": PROBLEM_SCHEMA["properties"]["errors"],
    },
}
OPENAI_ERROR_SCHEMA: dict[str, Any] = {
    "title": "OpenAIError",
    "description": "Why a request failed, for clients of OpenAI.",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": PREDICT_ERROR_SCHEMA["properties"]["error"],
                "type": {
                    "type": "string",
                    "enum": ["invalid_request_error", "requests", "server_error"],
                },
                "param": {"type": ["string", "null"], "description": "The field that is wrong."},
                "code": PROBLEM_SCHEMA["properties"]["code"],
            },
        }
    },
}
MISTRAL_ERROR_SCHEMA: dict[str, Any] = {
    "title": "MistralError",
    "description": "Why a request failed, for clients of Mistral.",
    "type": "object",
    "required": ["object", "message", "type", "param", "code"],
    "properties": {
        "object": {"const": "error"},
        **OPENAI_ERROR_SCHEMA["properties"]["error"]["properties"],
        "detail": {
            "description": "What is wrong with the request, if the status is 422.",
            "type": "array",
            "items": {
                "type": "object",
                "required": ["loc", "msg", "type"],
                "properties": {
                    "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                    "msg": {"type": "string"},
                    "type": PROBLEM_SCHEMA["properties"]["code"],
                },
            },
        },
    },
}


def _error_responses(media_type: str, schema: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    content = {media_type: {"schema": schema}}
    return {
        "4XX": {
            "description": "Request rejected; `code` identifies the cause.",
            "content": content,
        },
        "5XX": {
            "description": "The service failed or is busy; `Retry-After`, if set, is in seconds.",
            "content": content,
        },
    }


PROBLEM_RESPONSES = _error_responses("application/problem+json", PROBLEM_SCHEMA)
# For the paths of `uses_predict_format`, `uses_openai_format` and `uses_mistral_format`.
PREDICT_ERROR_RESPONSES = _error_responses("application/json", PREDICT_ERROR_SCHEMA)
OPENAI_ERROR_RESPONSES = _error_responses("application/json", OPENAI_ERROR_SCHEMA)
MISTRAL_ERROR_RESPONSES = _error_responses("application/json", MISTRAL_ERROR_SCHEMA)


log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ProblemDetails:
    """The content of an error response, independent of its format. Fields as in RFC 9457."""

    status: int
    code: str
    title: str
    detail: str
    errors: tuple[dict[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


ProblemPageRenderer = Callable[[Request, ProblemDetails], Response]


def add_exception_handlers(app: FastAPI) -> None:
    """Register handlers for expected errors. `ErrorMiddleware` responds to all others."""
    expected = (AppError, LoraCoreError, RequestValidationError, HTTPException, SQLAlchemyError)
    for error_class in expected:
        app.add_exception_handler(error_class, _handle)


async def _handle(request: Request, error: Exception) -> Response:
    return log_and_build_error_response(request.scope, error)


def log_and_build_error_response(scope: Scope, error: Exception) -> Response:
    """Return the response to an error, and log the details that it must not contain."""
    problem = problem_from_error(error, scope)
    if problem.code == _INTERNAL_ERROR:
        log.error("unexpected_error", code=problem.code, exc_info=error)
    elif problem.status >= 500 or isinstance(error, SQLAlchemyError):
        log.warning("unavailable", code=problem.code, reason=str(error))
    return problem_response(scope, problem)


def problem_response(scope: Scope, problem: ProblemDetails) -> Response:
    """Render the problem in the format of the path, or as a page if a browser navigates to it."""
    path: str = scope["path"]
    if uses_openai_format(path):
        return _openai_error_response(problem)
    if uses_mistral_format(path):
        return _mistral_error_response(problem)
    is_navigation = scope["method"] == "GET" or path == "/sign-in"  # which browsers post a form to
    if is_navigation and "text/html" in Headers(scope=scope).get("accept", ""):
        return get_app_state(scope["app"]).render_problem(Request(scope), problem)
    if uses_predict_format(path):
        return _predict_error_response(problem)
    body: dict[str, Any] = {
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
    return JSONResponse(
        _replace_surrogates(body),
        problem.status,
        dict(problem.headers),
        "application/problem+json",
    )


def _predict_error_response(problem: ProblemDetails) -> Response:
    body: dict[str, Any] = {
        "error": problem.detail,
        "error_type": _error_type(problem),
        "code": problem.code,
    }
    if problem.errors:
        body["errors"] = problem.errors
    return JSONResponse(_replace_surrogates(body), problem.status, dict(problem.headers))


def _openai_error_response(problem: ProblemDetails) -> Response:
    """Render the problem for clients of OpenAI.

    These repeat a request after 408, 409, 429 and 5xx, unless `x-should-retry` says that this is of
    no use. It is of use exactly when the problem says how long to wait.
    """
    status = _OPENAI_STATUS.get(problem.status, problem.status)
    headers = dict(problem.headers)
    if status in (408, 409, 429) or status >= 500:
        headers["x-should-retry"] = "true" if "Retry-After" in headers else "false"
    error = _openai_error(problem, status)
    return JSONResponse(_replace_surrogates({"error": error}), status, headers)


def _mistral_error_response(problem: ProblemDetails) -> Response:
    """Render the problem for clients of Mistral, which parse the `detail` of a 422."""
    status = _MISTRAL_STATUS.get(problem.status, problem.status)
    body = {"object": "error", **_openai_error(problem, status)}
    if status == 422:
        whole = {"at": "", "message": problem.detail, "code": problem.code}
        body["detail"] = [
            {"loc": _location(each["at"]), "msg": each["message"], "type": each["code"]}
            for each in problem.errors or (whole,)
        ]
    return JSONResponse(_replace_surrogates(body), status, dict(problem.headers))


def _location(at: str) -> list[str | int]:
    """Return the path of a field as FastAPI does: `query.page` → ["query", "page"]."""
    parts: list[str | int] = [int(part) if part.isdecimal() else part for part in at.split(".")]
    if parts[0] in ("query", "path", "header"):
        return parts
    return ["body", *parts] if at else ["body"]


def _openai_error(problem: ProblemDetails, status: int) -> dict[str, Any]:
    return {
        "message": problem.detail,
        "type": _openai_error_type(status),
        "param": problem.errors[0]["at"].removeprefix("query.") if problem.errors else None,
        "code": problem.code,
    }


def _openai_error_type(status: int) -> str:
    if status >= 500:
        return "server_error"
    return "requests" if status == 429 else "invalid_request_error"


def uses_predict_format(path: str) -> bool:
    """Return whether errors of this path have the predict format."""
    return path in PREDICT_PATHS or path.startswith("/models/")


def uses_openai_format(path: str) -> bool:
    """Return whether errors of this path have the format of the OpenAI API."""
    return path.startswith(OPENAI_PREFIX)


def uses_mistral_format(path: str) -> bool:
    """Return whether errors of this path have the format of the Mistral API."""
    return path.startswith(MISTRAL_PREFIX)


def _error_type(problem: ProblemDetails) -> str:
    if problem.code == "empty_input":
        return "Empty"
    if problem.code in ("key_overloaded", "rate_limit_exceeded"):
        return "RateLimited"
    return _ERROR_TYPES.get(problem.status, "Validation")


def problem_from_error(error: Exception, scope: Scope) -> ProblemDetails:
    """Describe an error for its response. Unknown errors become `internal_error`."""
    match error:
        case AppError():
            return _from_app_error(error)
        case LoraCoreError():
            return ProblemDetails(422, error.code, error.title, str(error))
        case RequestValidationError():
            return _from_validation_error(error, scope)
        case HTTPException():
            return _from_http_exception(error, scope)
        case OSError() if is_disk_full(error):
            return _from_app_error(InsufficientStorage())
        case SQLAlchemyError() if app_error := database_errors.to_app_error(error):
            return _from_app_error(app_error)
        case _:
            return _internal_error(scope)


def _internal_error(scope: Scope) -> ProblemDetails:
    request_id = scope.get("state", {}).get("request_id", "")
    detail = f"Internal server error. The server log has details under request id {request_id}."
    return ProblemDetails(500, _INTERNAL_ERROR, "Internal server error.", detail)


def _from_app_error(error: AppError) -> ProblemDetails:
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
    wait = error.detail.get("retry_after", RETRY_AFTER_SECONDS if error.status == 503 else None)
    if wait is not None:  # seconds
        headers["Retry-After"] = str(wait)
    at = error.detail.get("at")
    errors = ({"at": str(at), "code": error.code, "message": str(error)},) if at else ()
    return ProblemDetails(error.status, error.code, error.title, str(error), errors, headers)


def _from_http_exception(error: HTTPException, scope: Scope) -> ProblemDetails:
    """Describe an error that the framework itself raised."""
    headers = dict(error.headers or {})
    match error.status_code:
        case 400:
            code, detail = "malformed_body", "The body does not match its Content-Type."
        case 404:
            code, detail = (
                "not_found",
                "There is no resource at this URL. /docs lists the available routes.",
            )
        case 405:
            code, allowed = "method_not_allowed", _allowed_methods(scope)
            headers["Allow"] = ", ".join(allowed)
            detail = f"{scope['method']} is not allowed here. Use {' or '.join(allowed)}."
        case 408:
            code, detail = "body_too_slow", "The body arrived too slowly. Send it again, faster."
        case 413:
            code, detail = "body_too_large", f"The body exceeds {_body_limit(scope)} bytes."
        case _:
            code, detail = f"http_{error.status_code}", HTTPStatus(error.status_code).description
    title = f"{HTTPStatus(error.status_code).phrase}."
    return ProblemDetails(error.status_code, code, title, detail, headers=headers)


def _allowed_methods(scope: Scope) -> list[str]:
    """Return all methods of this URL. The router's own Allow header names one route's only."""
    routes = scope["app"].routes
    return [
        method
        for method in HTTP_METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    ]


def _body_limit(scope: Scope) -> str:
    return str(scope.get("starlette.max_body_size", "the allowed number of"))


def _replace_surrogates(value: Any) -> Any:
    """Replace lone surrogates, which have no UTF-8 encoding, in all texts."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {
            _replace_surrogates(name): _replace_surrogates(each) for name, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [_replace_surrogates(each) for each in value]
    return value


# -- validation errors --------------------------------------------------------------------------

_MAX_ERRORS = 50
_WHOLE_BODY_ERROR_TYPES = {
    "model_attributes_type",
    "model_type",
    "dict_type",
    "dataclass_type",
    "bytes_type",
}


class FormValidationError(RequestValidationError):
    """Invalid form fields. `model` is the form's model: FastAPI does not know it, because the route
    parses the form itself."""

    def __init__(self, error: ValidationError, model: type[BaseModel]) -> None:
        super().__init__(error.errors(include_url=False))
        self.model = model


def _from_validation_error(error: RequestValidationError, scope: Scope) -> ProblemDetails:
    errors = error.errors()
    if any(each["type"] == "json_invalid" for each in errors):
        position = next(each["loc"][-1] for each in errors if each["type"] == "json_invalid")
        detail = f"The body is not valid JSON: syntax error at character {position}."
        return ProblemDetails(400, "malformed_json", "Malformed JSON.", detail)
    if not _has_json_content_type(scope) and any(_concerns_whole_body(each) for each in errors):
        detail = "Send the body as JSON with the header `Content-Type: application/json`."
        return ProblemDetails(415, "unsupported_media_type", "Unsupported media type.", detail)
    problems = _field_problems(error, scope)
    detail = f"{problems[0].at}: {problems[0].message}."
    if len(problems) > 1:
        detail += f" And {len(problems) - 1} more."
    listed = tuple(asdict(problem) for problem in problems[:_MAX_ERRORS])
    return ProblemDetails(422, "validation_failed", "Validation failed.", detail, listed)


def _has_json_content_type(scope: Scope) -> bool:
    content_type = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
    return (
        content_type == "application/json"
        or content_type.endswith("+json")
        or content_type.startswith("multipart/")
    )


def _concerns_whole_body(error: Any) -> bool:
    return tuple(error["loc"]) == ("body",) and error["type"] in _WHOLE_BODY_ERROR_TYPES


def _field_problems(error: RequestValidationError, scope: Scope) -> list[FieldProblem]:
    """Return the problems with their paths: `method.r` in the body, `query.limit` elsewhere."""
    if isinstance(error, FormValidationError):
        return field_problems(error.errors(), error.model)
    body, others = [], []
    for each in error.errors():
        location, *path_in_body = each["loc"]
        if location == "body" and path_in_body:
            body.append({**each, "loc": path_in_body})
        else:
            others.append(each)
    field = getattr(scope.get("route"), "body_field", None)
    return field_problems(others, None) + field_problems(
        body, field.field_info.annotation if field else None
    )
