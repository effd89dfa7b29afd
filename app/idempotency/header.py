"""The header `Idempotency-Key`, and the replay of stored responses.

Follows draft-ietf-httpapi-idempotency-key-header: the value is a quoted string or, as most clients
send it, bare text.
"""

import hashlib
import json
import re
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from app.http.dependencies import CallerDep, SettingsDep
from app.idempotency.service import IdempotencyKeyInvalid, IdempotentRequest, StoredResponseFound

HEADER_NAME = "Idempotency-Key"
MAX_KEY_LENGTH = 255  # characters
KEY_PATTERN = r"^[\x20-\x7e]{1,255}$"  # in the OpenAPI schema only: see `parse_header`
_PRINTABLE = re.compile(r"[\x20-\x7e]*")
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_DESCRIPTION = (
    "Makes it safe to retry this request: the same key and body return the first response, and "
    "nothing is created twice. 1 to 255 printable ASCII characters."
)


async def _idempotent_request(
    request: Request,
    caller: CallerDep,
    settings: SettingsDep,
    _: Annotated[
        Annotated[str, Field(json_schema_extra={"pattern": KEY_PATTERN})] | None,
        Header(alias=HEADER_NAME, description=_DESCRIPTION),
    ] = None,
) -> Callable[[Any], IdempotentRequest]:
    key = parse_header(request.headers.getlist(HEADER_NAME))

    def with_body(content: Any) -> IdempotentRequest:
        return IdempotentRequest(
            caller.id,
            route=f"{request.method} {request.scope['route'].path}",
            key=key,
            body_sha256=None if key is None else _digest([request.url.path, content]),
            retention_seconds=settings.idempotency_seconds,
        )

    return with_body


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


# Call it with the body, as JSON, for what the functions of `app.idempotency.service` take.
IdempotencyDep = Annotated[Callable[[Any], IdempotentRequest], Depends(_idempotent_request)]


def parse_header(values: list[str]) -> str | None:
    """Return the key in the values of the header, or None without the header.

    Raises `IdempotencyKeyInvalid`.
    """
    if not values:
        return None
    if len(values) > 1:
        raise _invalid("was sent more than once")
    key = values[0]
    if key.startswith('"'):
        quoted = _QUOTED.fullmatch(key)
        if quoted is None:
            raise _invalid("is not a valid quoted string")
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    if not key:
        raise _invalid("is empty")
    if len(key) > MAX_KEY_LENGTH:
        raise _invalid("is too long")
    if not _PRINTABLE.fullmatch(key):
        raise _invalid("contains other characters")
    return key


def _invalid(problem: str) -> IdempotencyKeyInvalid:
    return IdempotencyKeyInvalid(problem=problem, max_length=MAX_KEY_LENGTH)


def add_replay_handler(app: FastAPI) -> None:
    """Register the handler of `StoredResponseFound`."""
    app.add_exception_handler(StoredResponseFound, _replay_response)


async def _replay_response(_: Request, replayed: Any) -> Response:
    headers = {"Idempotency-Replayed": "true"}
    if replayed.location is not None:
        headers["Location"] = replayed.location
    return JSONResponse(replayed.body, replayed.status, headers)
