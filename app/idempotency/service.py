"""Create at most once per `Idempotency-Key`: the response is stored in the creating transaction.

raise_if_replayed(session, call)   before any expensive work: was this request answered before?
reserve(session, call)             early in the creating transaction, which it may end
save_response(session, call, …)    last, before the commit

Without a key, these do nothing. A failed request is rolled back with its whole transaction, and its
key can be used again.
"""

import json
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import delete, select, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from app.database.base import JsonObject, now
from app.errors import Conflict, UnprocessableContent
from app.http.fields import ResponseModel
from app.idempotency.tables import IdempotencyKey


class IdempotencyKeyInvalid(UnprocessableContent):
    code = "idempotency_key_invalid"
    title = "Invalid Idempotency-Key."
    message = (
        "The header Idempotency-Key {problem}. Send one value of 1 to {max_length} printable ASCII "
        "characters, such as a UUID."
    )


class IdempotencyKeyReused(UnprocessableContent):
    code = "idempotency_key_reused"
    title = "The Idempotency-Key was already used for a different request."
    message = (
        "This Idempotency-Key was already sent with a different body or path. Use a new key for a "
        "new request; a retry must be identical to the first request."
    )


class IdempotencyInFlight(Conflict):
    code = "idempotency_in_flight"
    title = "The first request with this Idempotency-Key is still in progress."
    message = (
        "The first request with this Idempotency-Key is still in progress. Send it again, "
        "unchanged, in {retry_after} s."
    )


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """A request that creates a resource. Without a key, idempotency does not apply."""

    caller_id: UUID
    route: str
    key: str | None
    body_sha256: str | None
    retention_seconds: float


class StoredResponseFound(Exception):
    """The stored response of an earlier request with the same key.

    It is raised like an error, because it must stop the work at any point: nothing may be created.
    """

    def __init__(self, status: int, body: JsonObject, location: str | None) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.location = location


LOCK_TIMEOUT_SECONDS = 5  # how long to wait for a concurrent request with the same key
RETRY_AFTER_SECONDS = 2
_LOCK_NOT_AVAILABLE = "55P03"  # PostgreSQL's lock_not_available


def _find_response(session: Session, call: IdempotentRequest) -> IdempotencyKey | None:
    """Return the row with the response for the key, if it has not expired."""
    not_expired = IdempotencyKey.created_at >= now() - call.retention_seconds
    return session.scalar(
        select(IdempotencyKey).where(
            IdempotencyKey.api_key_id == call.caller_id,
            IdempotencyKey.route == call.route,
            IdempotencyKey.key == call.key,
            not_expired,
        )
    )


def _reserve_key(session: Session, call: IdempotentRequest) -> IdempotencyKey | None:
    """Insert the row of a request. Returns None, or the existing row of an earlier request.

    The primary key decides: a second request waits until the first transaction ends. Raises
    `IdempotencyInFlight` if that takes too long.
    """
    is_postgresql = session.get_bind().dialect.name == "postgresql"  # SQLite has a single writer
    try:
        if is_postgresql:
            session.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'"))
        existing = _insert_key(session, call)
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise IdempotencyInFlight(retry_after=RETRY_AFTER_SECONDS) from error
    if is_postgresql:
        session.execute(text("SET LOCAL lock_timeout TO DEFAULT"))
    return existing


def _insert_key(session: Session, call: IdempotentRequest) -> IdempotencyKey | None:
    primary_key = {"api_key_id": call.caller_id, "route": call.route, "key": call.key}
    session.execute(
        delete(IdempotencyKey)
        .filter_by(**primary_key)
        .where(IdempotencyKey.created_at < now() - call.retention_seconds)
        .execution_options(synchronize_session=False)
    )
    try:
        with session.begin_nested():
            session.add(
                IdempotencyKey(
                    **primary_key, body_sha256=call.body_sha256, status=0, response_body={}
                )
            )
    except IntegrityError:
        return session.get_one(IdempotencyKey, primary_key)
    return None


def raise_if_replayed(session: Session, call: IdempotentRequest) -> None:
    """Raise `StoredResponseFound` if this request was answered, or `IdempotencyKeyReused`."""
    if call.key is not None and (saved := _find_response(session, call)):
        raise _replay_error(saved, call)


def reserve(session: Session, call: IdempotentRequest) -> None:
    """Reserve the key. A concurrent request with the same key waits here for the first to finish.

    Raises `StoredResponseFound`, `IdempotencyKeyReused`, `IdempotencyInFlight`: the
    caller must create nothing then.
    """
    if call.key is not None and (saved := _reserve_key(session, call)):
        raise _replay_error(saved, call)


def save_response(
    session: Session,
    call: IdempotentRequest,
    *,
    status: int,
    body: ResponseModel,
    location: str | None = None,
) -> None:
    """Store the response, as it will be sent, under the key that `reserve` reserved."""
    if call.key is None:
        return
    row = session.get_one(IdempotencyKey, (call.caller_id, call.route, call.key))
    row.status, row.location = status, location
    row.response_body = json.loads(body.model_dump_json())
    session.flush()


def _replay_error(saved: IdempotencyKey, call: IdempotentRequest) -> Exception:
    if saved.body_sha256 != call.body_sha256:
        return IdempotencyKeyReused()
    return StoredResponseFound(saved.status, saved.response_body, saved.location)
