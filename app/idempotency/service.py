"""What can be wrong with an `Idempotency-Key`."""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, FastAPI, Header, Request
from pydantic import Field
from sqlalchemy import delete, select, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, Response

from app.database.base import JsonObject
from app.database.clock import now
from app.errors import Conflict, Invalid
from app.http.dependencies import CallerDep, SettingsDep
from app.http.fields import View
from app.idempotency.tables import IdempotencyKey


class IdempotencyKeyInvalid(Invalid):
    """Not an `Idempotency-Key`."""

    code = "idempotency_key_invalid"
    message = (
        "The header Idempotency-Key {problem}. Send one value of 1 to {most} printable ASCII "
        "characters, such as a UUID."
    )


class IdempotencyKeyReused(Invalid):
    """The key belongs to a call with another body."""

    code = "idempotency_key_reused"
    message = (
        "This Idempotency-Key was sent before with another body or for another thing. Take a new "
        "key for a new call; a repeated call must be the same in all its parts."
    )


class IdempotencyInFlight(Conflict):
    """The first call with this key is still being worked on."""

    code = "idempotency_in_flight"
    message = (
        "The first call with this Idempotency-Key has no answer yet. Send it again, unchanged, in "
        "{retry_after} s."
    )


# MERGED app.idempotency.service
# A creating call with the key that its caller gave it, and what comes of sending it again.


@dataclass(frozen=True, slots=True)
class Call:
    """A creating call. Without a key, and so without a digest, it is like any other call."""

    caller_id: UUID
    route: str
    key: str | None
    body_sha256: str | None
    keep_seconds: float


class Replayed(Exception):
    """The call was answered before, and this is the answer.

    Raised like an error, since it ends the work wherever that has got to: nothing is to be created.
    """

    def __init__(self, status: int, answer: JsonObject, location: str | None) -> None:
        super().__init__(status)
        self.status = status
        self.answer = answer
        self.location = location


# MERGED app.idempotency.service
# The header `Idempotency-Key`.
#
# Follows draft-ietf-httpapi-idempotency-key-header: a text in quotes, or, as most clients send it,
# the bare text.

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


# MERGED app.idempotency.service
# Rows of answers that are kept.

WAIT_SECONDS = 5  # for the first of several calls at the same time
RETRY_SECONDS = 2
_LOCK_TIMEOUT = "55P03"  # PostgreSQL's lock_not_available


def find(session: Session, call: Call) -> IdempotencyKey | None:
    """The answer to an earlier call with this key, if it has not expired."""
    fresh = IdempotencyKey.created_at >= now() - call.keep_seconds
    return session.scalar(
        select(IdempotencyKey).where(
            IdempotencyKey.api_key_id == call.caller_id,
            IdempotencyKey.route == call.route,
            IdempotencyKey.key == call.key,
            fresh,
        )
    )


def take(session: Session, call: Call) -> IdempotencyKey | None:
    """Insert the row of a call. Returns None, or the row of an earlier call that is there already.

    The index of the table decides: whoever comes second waits until the first transaction ends.
    Raises `IdempotencyInFlight` when that takes too long.
    """
    server = session.get_bind().dialect.name == "postgresql"  # SQLite has one writer anyway
    try:
        if server:
            session.execute(text(f"SET LOCAL lock_timeout = '{WAIT_SECONDS}s'"))
        there = _insert(session, call)
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != _LOCK_TIMEOUT:
            raise
        raise IdempotencyInFlight(retry_after=RETRY_SECONDS) from error
    if server:
        session.execute(text("SET LOCAL lock_timeout TO DEFAULT"))
    return there


def _insert(session: Session, call: Call) -> IdempotencyKey | None:
    place = {"api_key_id": call.caller_id, "route": call.route, "key": call.key}
    session.execute(
        delete(IdempotencyKey)
        .filter_by(**place)
        .where(IdempotencyKey.created_at < now() - call.keep_seconds)
        .execution_options(synchronize_session=False)
    )
    try:
        with session.begin_nested():
            session.add(IdempotencyKey(**place, body_sha256=call.body_sha256, status=0, answer={}))
    except IntegrityError:
        return session.get_one(IdempotencyKey, place)
    return None


# MERGED app.idempotency.service
# Creating at most once under one key: the answer is kept in the transaction that creates.
#
# recall(session, call)    before any costly work: was this very call answered?
# begin(session, call)     first in the transaction that creates
# keep(session, call, …)   last, before the commit
#
# Nothing of this happens without a key. A failed call is rolled back with its whole transaction,
# and its key can be used again.


def recall(session: Session, call: Call) -> None:
    """Raises `Replayed` when this call was answered before, `IdempotencyKeyReused`."""
    if call.key is not None and (saved := find(session, call)):
        raise _replayed(saved, call)


def begin(session: Session, call: Call) -> None:
    """Reserve the key. Whoever comes second waits here until the first one commits or fails.

    Raises `Replayed`, `IdempotencyKeyReused`, `IdempotencyInFlight`; nothing may be created then.
    """
    if call.key is not None and (saved := take(session, call)):
        raise _replayed(saved, call)


def keep(
    session: Session, call: Call, *, status: int, body: View, location: str | None = None
) -> None:
    """Store the answer, as it goes out, under the key that `begin` reserved."""
    if call.key is None:
        return
    row = session.get_one(IdempotencyKey, (call.caller_id, call.route, call.key))
    row.status, row.location = status, location
    row.answer = json.loads(body.model_dump_json())
    session.flush()


def _replayed(saved: IdempotencyKey, call: Call) -> Exception:
    if saved.body_sha256 != call.body_sha256:
        return IdempotencyKeyReused()
    return Replayed(saved.status, saved.answer, saved.location)


# MERGED app.idempotency.service
# An answer that is given again.


def install(app: FastAPI) -> None:
    """Let routes raise `Replayed`."""
    app.add_exception_handler(Replayed, _respond)


async def _respond(_: Request, saved: Any) -> Response:
    headers = {"Idempotency-Replayed": "true"}
    if saved.location is not None:
        headers["Location"] = saved.location
    return JSONResponse(saved.answer, saved.status, headers)
