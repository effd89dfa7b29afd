"""Reading and writing keys and sessions."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from app.auth.errors import KeyNotFound
from app.auth.tables import LOCAL_KEY_ID, ApiKey, BrowserSession
from app.database.clock import now


def get(session: Session, key_id: UUID) -> ApiKey:
    """The key. Raises `KeyNotFound`."""
    key = session.get(ApiKey, key_id)
    if key is None:
        raise KeyNotFound(key_id=key_id)
    return key


def list_all(session: Session) -> Sequence[ApiKey]:
    """Every key, oldest first, without the row `local`."""
    return session.scalars(
        select(ApiKey).where(ApiKey.id != LOCAL_KEY_ID).order_by(ApiKey.id)
    ).all()


def revoke(session: Session, key_id: UUID) -> None:
    """Note the moment, unless it was revoked before."""
    session.execute(
        update(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=now())
    )


def touch(session: Session, key_id: UUID) -> None:
    """Note that the key was used just now."""
    session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=now()))


def usable(session: Session) -> Sequence[ApiKey]:
    """Keys that are neither revoked nor expired."""
    return session.scalars(
        select(ApiKey).where(
            ApiKey.id != LOCAL_KEY_ID,
            ApiKey.revoked_at.is_(None),
            (ApiKey.expires_at.is_(None)) | (ApiKey.expires_at > now()),
        )
    ).all()


def sessions(session: Session) -> Sequence[BrowserSession]:
    """Sessions of all browsers, oldest first."""
    return session.scalars(select(BrowserSession).order_by(BrowserSession.id)).all()


def touch_session(session: Session, session_id: UUID) -> None:
    """Note that the session, and so its key, was used just now."""
    key_id = session.scalars(
        update(BrowserSession)
        .where(BrowserSession.id == session_id)
        .values(last_used_at=now())
        .returning(BrowserSession.key_id)
    ).one_or_none()
    if key_id is not None:
        touch(session, key_id)


def delete_sessions(session: Session, id_: UUID) -> int:
    """Delete the session or all sessions of the key with this id. Returns how many."""
    mine = or_(BrowserSession.id == id_, BrowserSession.key_id == id_)
    return len(
        session.scalars(delete(BrowserSession).where(mine).returning(BrowserSession.id)).all()
    )


def delete_ended_sessions(session: Session, *, idle_seconds: float) -> None:
    """Delete sessions that expired, or were not used for so long."""
    idle = BrowserSession.last_used_at <= now() - idle_seconds
    session.execute(delete(BrowserSession).where((BrowserSession.expires_at <= now()) | idle))
