"""Create at most once per `Idempotency-Key`: the response is kept in the creating transaction.

recall(session, call)    before any costly work: was this very call answered?
begin(session, call)     first in the transaction that creates
keep(session, call, …)   last, before the commit

Without a key nothing of this happens. A failed call is rolled back with its whole transaction, and
its key can be used again.
"""

import json
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import delete, select, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from app.database.base import JsonObject
from app.database.clock import now
from app.errors import Conflict, Invalid
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
