"""The header `Idempotency-Key`: how it is read, and how a kept response is sent again.

Follows draft-ietf-httpapi-idempotency-key-header: a quoted string or, as most clients send it, the
bare text.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, FastAPI, Header, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from app.http.dependencies import CallerDep, SettingsDep
from app.idempotency.service import Call, IdempotencyKeyInvalid, Replayed

HEADER = "Idempotency-Key"
LONGEST = 255  # characters
PATTERN = r"^[\x20-\x7e]{1,255}$"  # for who reads the schema: others are `IdempotencyKeyInvalid`
_PRINTABLE = re.compile(r"[\x20-\x7e]*")
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_DESCRIPTION = (
    "Makes it safe to send this call again: the same key and body get the first answer, and "
    "nothing is created twice. 1 to 255 printable ASCII characters."
)


@dataclass(frozen=True, slots=True)
class Keyed:
    """A creating call whose body is still to be looked at."""

    caller_id: UUID
    route: str
    path: str
    key: str | None
    keep_seconds: float

    def call(self, content: Any) -> Call:
        """`content` is what was sent, as JSON: only what matters, in one form."""
        digest = None if self.key is None else _digest([self.path, content])
        return Call(self.caller_id, self.route, self.key, digest, self.keep_seconds)


def _digest(sent: Any) -> str:
    told = json.dumps(sent, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(told.encode()).hexdigest()


async def _keyed(
    request: Request,
    caller: CallerDep,
    settings: SettingsDep,
    _: Annotated[
        Annotated[str, Field(json_schema_extra={"pattern": PATTERN})] | None,
        Header(alias=HEADER, description=_DESCRIPTION),
    ] = None,
) -> Keyed:
    return Keyed(
        caller_id=caller.id,
        route=f"{request.method} {request.scope['route'].path}",
        path=request.url.path,
        key=parse(request.headers.getlist(HEADER)),
        keep_seconds=settings.idempotency_seconds,
    )


KeyedDep = Annotated[Keyed, Depends(_keyed)]


def parse(sent: list[str]) -> str | None:
    """The key in the values of the header; None if there is no such header.

    Raises `IdempotencyKeyInvalid`.
    """
    if not sent:
        return None
    if len(sent) > 1:
        raise IdempotencyKeyInvalid(problem="was sent several times", most=LONGEST)
    key = sent[0]
    if key.startswith('"'):
        quoted = _QUOTED.fullmatch(key)
        if quoted is None:
            raise IdempotencyKeyInvalid(problem="is no text in quotes", most=LONGEST)
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    if not key:
        raise IdempotencyKeyInvalid(problem="is empty", most=LONGEST)
    if len(key) > LONGEST:
        raise IdempotencyKeyInvalid(problem="is too long", most=LONGEST)
    if not _PRINTABLE.fullmatch(key):
        raise IdempotencyKeyInvalid(problem="holds other characters", most=LONGEST)
    return key


def install(app: FastAPI) -> None:
    """Let routes raise `Replayed`."""
    app.add_exception_handler(Replayed, _respond)


async def _respond(_: Request, saved: Any) -> Response:
    headers = {"Idempotency-Replayed": "true"}
    if saved.location is not None:
        headers["Location"] = saved.location
    return JSONResponse(saved.answer, saved.status, headers)
