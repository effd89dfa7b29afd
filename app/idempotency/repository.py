"""Rows of answers that are kept."""

from sqlalchemy import delete, select, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from app.database.clock import now
from app.idempotency.calls import Call
from app.idempotency.errors import IdempotencyInFlight
from app.idempotency.tables import IdempotencyKey

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
