"""Reading and writing keys."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.db.clock import now
from app.keys.errors import KeyNotFound
from app.keys.tables import LOCAL_KEY_ID, ApiKey


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
