"""Queries of API keys and browser sessions."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.orm import Session

from app.auth.errors import KeyNotFound
from app.auth.tables import LOCAL_KEY_ID, ApiKey, BrowserSession
from app.database.base import now


def get_key(session: Session, key_id: UUID) -> ApiKey:
    """Return the API key. Raises `KeyNotFound`."""
    key = session.get(ApiKey, key_id)
    if key is None:
        raise KeyNotFound(key_id=key_id)
    return key


def list_keys(session: Session) -> Sequence[ApiKey]:
    """Return all API keys, oldest first, without the row `local`."""
    return session.scalars(
        select(ApiKey).where(ApiKey.id != LOCAL_KEY_ID).order_by(ApiKey.id)
    ).all()


def revoke_key(session: Session, key_id: UUID) -> None:
    """Set the time of revocation, unless the key is already revoked."""
    session.execute(
        update(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=now())
    )


def record_key_use(session: Session, key_id: UUID) -> None:
    """Set the key's `last_used_at` to now."""
    session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=now()))


def list_usable_keys(session: Session) -> Sequence[ApiKey]:
    """Return the API keys that are neither revoked nor expired."""
    return session.scalars(
        select(ApiKey).where(
            ApiKey.id != LOCAL_KEY_ID,
            ApiKey.revoked_at.is_(None),
            (ApiKey.expires_at.is_(None)) | (ApiKey.expires_at > now()),
        )
    ).all()


def list_sessions(session: Session, *, idle_seconds: float) -> Sequence[BrowserSession]:
    """Return the browser sessions that have not ended, oldest first."""
    return session.scalars(
        select(BrowserSession).where(~_has_ended(idle_seconds)).order_by(BrowserSession.id)
    ).all()


def record_session_and_key_use(session: Session, session_id: UUID) -> None:
    """Set the `last_used_at` of the session and of its key to now."""
    key_id = session.scalars(
        update(BrowserSession)
        .where(BrowserSession.id == session_id)
        .values(last_used_at=now())
        .returning(BrowserSession.key_id)
    ).one_or_none()
    if key_id is not None:
        record_key_use(session, key_id)


def delete_session_or_key_sessions(session: Session, id_: UUID) -> int:
    """Delete the session, or all sessions of the API key, with this id. Return the count."""
    matches = or_(BrowserSession.id == id_, BrowserSession.key_id == id_)
    return len(
        session.scalars(delete(BrowserSession).where(matches).returning(BrowserSession.id)).all()
    )


def delete_expired_sessions(session: Session, *, idle_seconds: float) -> None:
    """Delete sessions that expired, whose key did, or that were idle for `idle_seconds`."""
    session.execute(delete(BrowserSession).where(_has_ended(idle_seconds)))


def _has_ended(idle_seconds: float) -> ColumnElement[bool]:
    """Whether a session, or its key, expired, or the session was idle for too long."""
    return or_(
        BrowserSession.expires_at <= now(),
        BrowserSession.last_used_at <= now() - idle_seconds,
        BrowserSession.key_id.in_(select(ApiKey.id).where(ApiKey.expires_at <= now())),
    )
