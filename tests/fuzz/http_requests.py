"""Readers of HTTP requests: bodies, uploads, forms, headers, cookies, parameters."""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import RouteContext, iter_route_contexts
from pydantic import BaseModel, ValidationError
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from app.auth import secrets
from app.auth.middleware import LOCAL_CALLER, SESSION_COOKIE, parse_session_cookie
from app.datasets.multipart_upload import receive_upload
from app.datasets.schemas import UploadFields
from app.datasets.service import slugify
from app.errors import AppError
from app.http.dependencies import Caller, get_app_state
from app.http.error_responses import (
    FormValidationError,
    add_exception_handlers,
    problem_from_error,
    problem_response,
)
from app.http.pagination import decode_cursor
from app.idempotency.header import parse_header
from app.jobs.pretrained_bases import ResolvedBase
from app.main import create_app
from app.mistral.schemas import MistralFileUpload
from app.openai import ids as openai_ids
from app.openai.completion_schemas import ChatCompletionCreate, CompletionOptions
from app.openai.schemas import FileUpload
from app.registry import refs
from app.serving.client_formats import (
    PredictBodyWithoutModel,
    RerankBodyWithoutModel,
    VertexBody,
    parse_predict_request,
    parse_rerank_request,
)
from app.settings import Settings
from app.sweeps import planning
from app.sweeps.schemas import SweepCreate, SweepExtend
from app.sweeps.trials import RESOLVE_ERRORS
from app.web import sweep_form
from app.web.curl import curl_command
from app.web.sweep import _parse_extension
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
    except (AppError, LoraCoreError, RequestValidationError) as error:
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
    path, method = _example_path(operation), min(operation.methods or {"POST"})
    headers = [(b"content-type", b"application/json")]
    request = {"method": method, "path": path, "raw_path": path.encode(), "headers": headers}
    return _send(app, request, content)


def _send(app: FastAPI, request: Mapping[str, Any], content: bytes) -> int:
    statuses: list[int] = []
    bodies = [content]

    async def receive() -> dict[str, Any]:
        if not bodies:
            await asyncio.Event().wait()  # for the end of the connection
        return {"type": "http.request", "body": bodies.pop()}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {**SCOPE, "root_path": "", **request}
    _event_loop().run_until_complete(app(scope, receive, send))
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


# -- Whole requests: the stack of middleware, and routes that need no database --------------------

PATHS = ("/predict", "/sign-in", "/sign-out", "/static/api.js", "/docs")
# What h11 refuses before the application sees it, in a target, a name and a value.
_NO_TARGET = re.compile(rb"[^!-~]")
_FIELD_NAME = re.compile(rb"[!#$%&'*+.^_`|~\w-]+", re.ASCII)
_CONTROL_CHARACTER = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class _AnyKeyAuthenticator:
    """Accepts every key and session that has the right form, as it has no database."""

    async def authenticate_key(self, token: secrets.Token) -> Caller:
        token.digest(b"pepper")
        return LOCAL_CALLER

    authenticate_session = authenticate_key

    async def sign_in(self, token: secrets.Token) -> secrets.Token:
        return secrets.new_session_token(token.id)

    async def sign_out(self, token: secrets.Token) -> None:
        token.digest(b"pepper")

    def csrf_token(self, session: secrets.Token) -> str:
        return session.derive_secret(b"pepper", "page")


@cache
def _app_with_keys() -> FastAPI:
    app = create_app(Settings(auth="on"))
    state: Any = get_app_state(app)
    state.authenticator = _AnyKeyAuthenticator()
    state.serving = SimpleNamespace(check_capacity=lambda *_, **__: None)
    state.traffic = None
    return app


def request(data: bytes, directory: Path) -> None:
    """Send a request: `POST /sign-in?next=/`, lines of headers, an empty line, and a form."""
    del directory
    head, _, content = data.partition(b"\n\n")
    line, *lines = head.split(b"\n")
    method, _, target = line.partition(b" ")
    path, _, query = _NO_TARGET.sub(b"", target).partition(b"?")
    fields = [
        (name.lower(), value.strip()) for name, _, value in (x.partition(b":") for x in lines)
    ]
    headers = [
        (name, value)
        for name, value in fields
        if _FIELD_NAME.fullmatch(name) and not _CONTROL_CHARACTER.search(value)
    ]
    if b"host" not in dict(headers):
        headers.append((b"host", b"127.0.0.1"))
    known = path if path.decode("latin-1") in PATHS else b"/nothing"
    scope = {
        "method": "POST" if method == b"POST" else "GET", "path": known.decode(),
        "raw_path": known, "query_string": query, "headers": headers, "app": _app_with_keys(),
        "scheme": "http", "server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    # Without a body a prediction ends after its headers: the model is not there.
    status = _send(_app_with_keys(), scope, content if known == b"/sign-in" else b"")
    assert status < 500, status


# -- Forms ----------------------------------------------------------------------------------------


def form(data: bytes, directory: Path) -> None:
    """Read a form: its name, and in the next lines its fields as in a query string."""
    del directory
    name, content = split_name(data)
    values = dict(parse_qsl(content.decode("latin-1"), keep_blank_values=True))
    if name in FORMS:
        with _error_responses():
            FORMS[name](values)


def _uploaded_with(model: type[BaseModel]) -> Callable[[dict[str, str]], BaseModel]:
    """Return a reader of the fields of a multipart form."""

    def read(fields: dict[str, str]) -> BaseModel:
        try:
            return model.model_validate(fields)
        except ValidationError as error:
            raise FormValidationError(error, model) from error

    return read


def _dataset_form(fields: dict[str, str]) -> None:
    parsed = _uploaded_with(UploadFields)({name: text for name, text in fields.items() if text})
    assert isinstance(parsed, UploadFields)
    assert parsed.label_format.task == parsed.task
    slugify(parsed.name or "", 64)


def _sweep_form(values: dict[str, str]) -> None:
    """Do what the page of a new sweep does before it looks at any row."""
    parsed = sweep_form.parse_sweep_form(values)
    page = Request({**SCOPE, "state": {"caller": LOCAL_CALLER}})
    sweep_form.build_sweep_start_command(page, values, parsed.body)
    curl_command(page, "POST", "/v1/sweeps", parsed.body)
    try:
        sweep = SweepCreate.model_validate(parsed.body)
        planning.plan_trials(sweep, lambda *_: BASE)
        sweep_form.to_form_values(parsed.body)
    except ValidationError as error:
        sweep_form.validation_errors_by_input(error, SweepCreate)
    except RESOLVE_ERRORS as error:
        sweep_form.planning_errors_by_input(error)


def _extension_form(values: dict[str, str]) -> None:
    body, _ = _parse_extension(values, ("method.r", "method.targets", "optim.learning_rate"))
    try:
        SweepExtend.model_validate(body)
    except ValidationError as error:
        sweep_form.validation_errors_by_input(error, SweepExtend)


BASE = ResolvedBase(name="minilm-l6", config={}, content_id="0" * 64)
FORMS: Mapping[str, Callable[[dict[str, str]], object]] = {
    "dataset": _dataset_form,
    "openai": _uploaded_with(FileUpload),
    "mistral": _uploaded_with(MistralFileUpload),
    "sweep": _sweep_form,
    "extension": _extension_form,
}
