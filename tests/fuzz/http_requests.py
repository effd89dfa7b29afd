"""Readers of HTTP requests: bodies, uploads, cookies, parameters."""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from app.auth import secrets
from app.auth.middleware import SESSION_COOKIE, parse_session_cookie
from app.datasets.multipart_upload import receive_upload
from app.errors import AppError
from app.http.error_responses import add_exception_handlers, problem_from_error, problem_response
from app.http.pagination import decode_cursor
from app.idempotency.header import parse_header
from app.main import create_app
from app.openai import ids as openai_ids
from app.openai.completion_schemas import ChatCompletionCreate, CompletionOptions
from app.registry import refs
from app.serving.client_formats import (
    PredictBodyWithoutModel,
    RerankBodyWithoutModel,
    VertexBody,
    parse_predict_request,
    parse_rerank_request,
)
from app.settings import Settings
from app.webhooks.url_checks import AllowedHosts, check_webhook_url
from lora_core.errors import LoraCoreError
from lora_core.specs.chat import PromptFormat
from tests.fuzz.readers import split_name

SCOPE: Mapping[str, Any] = {
    "type": "http", "method": "POST", "path": "/v1/jobs", "query_string": b"", "headers": [],
}  # fmt: skip
FORMATS = (PromptFormat(), PromptFormat(prefix="Label:", suffix="###", system_in_text=True))


@contextmanager
def _error_responses() -> Iterator[None]:
    """Take errors of the service, for which there must be a response below 500."""
    try:
        yield
    except (AppError, LoraCoreError) as error:
        _respond(error)


def _respond(error: Exception) -> None:
    scope = {**SCOPE}
    assert problem_response(scope, problem_from_error(error, scope)).status_code < 500


# -- JSON bodies: those of all operations, by their ids -------------------------------------------


def bodies(data: bytes, directory: Path) -> None:
    """Validate the body of an operation below /v1: its id, and in the next lines the body."""
    del directory
    _send_body(data, "/v1/")


def predict_bodies(data: bytes, directory: Path) -> None:
    del directory
    _send_body(data, "/predict", "/rerank", "/vertex", "/models/")


def openai_bodies(data: bytes, directory: Path) -> None:
    del directory
    _send_body(data, "/openai/")


def mistral_bodies(data: bytes, directory: Path) -> None:
    del directory
    _send_body(data, "/mistral/")


def _send_body(data: bytes, *prefixes: str) -> None:
    name, content = split_name(data)
    operation = operations().get(name)
    if operation is not None and str(operation.path).startswith(prefixes):
        status = _call(_validating_app(), operation, content)
        assert status < 500, status


@cache
def operations() -> dict[str, RouteContext]:
    """Return the operations with a JSON body, by their ids."""
    return {
        str(context.name): context
        for context in iter_route_contexts(create_app(Settings()).router.routes)
        if context.include_in_schema and getattr(context, "body_field", None) is not None
    }


@cache
def _validating_app() -> FastAPI:
    """An application with the bodies of all operations, which only validates and parses them."""
    app = FastAPI(openapi_url=None)
    add_exception_handlers(app)
    for operation in operations().values():

        async def receive(body: Any) -> Response:
            _parse_further(body)
            return Response()

        receive.__annotations__["body"] = operation.body_field.field_info.annotation
        methods = list(operation.methods or ())
        app.add_api_route(_example_path(operation), receive, methods=methods)
    return app


def _example_path(operation: RouteContext) -> str:
    return re.sub(r"\{.*?\}", "x", str(operation.path))


def _parse_further(body: Any) -> None:
    """Do what routes do with a valid body before they look at any row."""
    match body:
        case VertexBody(instances=instances):
            for instance in instances:
                _parse_further(instance)
        case PredictBodyWithoutModel():
            for request_format in (None, "hf", "tei"):
                with _error_responses():
                    request = parse_predict_request(body, request_format, max_inputs=8)
                    request.combine_texts_for_pair_model(pairs=True)
        case RerankBodyWithoutModel():
            parse_rerank_request(body, max_inputs=8)
        case ChatCompletionCreate():
            for prompt_format in FORMATS:
                prompt_format.text_of_messages(body.conversation)
        case CompletionOptions():
            str(body.stop_sequences)


def _call(app: FastAPI, operation: RouteContext, content: bytes) -> int:
    """Return the status of the response to a request with this body."""
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": content}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    path, method = _example_path(operation), min(operation.methods or {"POST"})
    request = {
        "method": method, "path": path, "raw_path": path.encode(), "root_path": "",
        "headers": [(b"content-type", b"application/json")],
    }  # fmt: skip
    _event_loop().run_until_complete(app({**SCOPE, **request}, receive, send))
    return statuses[0]


@cache
def _event_loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


# -- Everything else ------------------------------------------------------------------------------


def upload(data: bytes, directory: Path) -> None:
    """Receive a multipart form: its content type, and in the next lines its body."""
    content_type, _, content = data.partition(b"\n")
    halves = [content[: len(content) // 2], content[len(content) // 2 :]]

    async def receive() -> dict[str, Any]:
        chunk = halves.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(halves)}

    request = Request({**SCOPE, "headers": [(b"content-type", content_type)]}, receive)
    with _error_responses():
        form = receive_upload(request, path=directory / "received", limit=4096)
        received = _event_loop().run_until_complete(form)
        assert received.bytes == received.path.stat().st_size <= 4096


def cookie(data: bytes, directory: Path) -> None:
    """Read the token of a session from the header, as it is and with the name of our cookie."""
    del directory
    for header in (data, SESSION_COOKIE.encode() + b"=" + data):
        with _error_responses():
            token = parse_session_cookie(
                HTTPConnection({**SCOPE, "headers": [(b"cookie", header)]})
            )
            if token is not None:
                token.digest(b"pepper")


PARSERS: tuple[Callable[[str], object], ...] = (
    secrets.parse_api_key,
    decode_cursor,
    refs.parse_ref,
    refs.job_id_in_model_name,
    openai_ids.parse_file_id,
    openai_ids.parse_result_file_id,
    openai_ids.parse_job_id,
    lambda text: parse_header([text]),
    lambda text: check_webhook_url(text, AllowedHosts(("10.0.0.0/8", "hooks"))),
)


def parameters(data: bytes, directory: Path) -> None:
    """Parse a header, or a part of a URL, as everything that one can be."""
    del directory
    for text in {data.decode("latin-1"), data.decode("utf-8", "replace")}:
        for parse in PARSERS:
            with _error_responses():
                parse(text)
