"""Making and revoking keys, for which there is no route; starting and ending sessions."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from app import logging
from app.auth import repository, secrets
from app.auth.errors import KeyNameInvalid, LocalKey, ScopeUnknown, SessionNotFound
from app.auth.scopes import ALL_SCOPES
from app.auth.tables import LOCAL_KEY_ID, ApiKey, BrowserSession
from app.database.base import new_id
from app.database.clock import read_clock
from app.database.locks import take_turns

LONGEST_NAME = 64  # characters


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made. `text` is shown once and kept nowhere."""

    key: ApiKey
    text: str

    def __repr__(self) -> str:
        return f"NewKey({self.key.id})"


def create(
    session: Session,
    *,
    pepper: bytes,
    name: str,
    scopes: Sequence[str] = ALL_SCOPES,
    days: float | None = None,
) -> NewKey:
    """Make a key with these scopes, which ends after so many days.

    Raises `KeyNameInvalid`, `ScopeUnknown`.
    """
    made = _add(session, pepper=pepper, name=name, scopes=scopes, days=days)
    session.commit()
    _note("key_created", made.key)
    return made


def revoke(session: Session, *, key_id: UUID) -> ApiKey:
    """End a key and its sessions; running services notice within a minute.

    Raises `KeyNotFound`, `LocalKey`.
    """
    if key_id == LOCAL_KEY_ID:
        raise LocalKey()
    key = repository.get(session, key_id)
    repository.revoke(session, key_id)
    repository.delete_sessions(session, key_id)
    session.commit()
    session.refresh(key)
    _note("key_revoked", key)
    return key


def start_session(
    session: Session, *, pepper: bytes, key_id: UUID, seconds: float, idle_seconds: float
) -> secrets.Token:
    """A new session of a browser that showed a valid key. Deletes those of all keys that ended."""
    repository.delete_ended_sessions(session, idle_seconds=idle_seconds)
    token = secrets.new_session_token(new_id())
    session.add(
        BrowserSession(
            id=token.id,
            key_id=key_id,
            secret_hmac=token.digest(pepper),
            expires_at=read_clock(session) + seconds,
        )
    )
    session.commit()
    logging.note("session_started", session=str(token.id), key=str(key_id))
    return token


def end_sessions(session: Session, *, id_: UUID) -> int:
    """End one session, or all of a key; running services notice within a minute.

    Returns how many. Raises `SessionNotFound`.
    """
    count = repository.delete_sessions(session, id_)
    session.commit()
    if not count:
        raise SessionNotFound(session_id=id_)
    logging.note("sessions_ended", id=str(id_), count=count, uid=os.getuid())
    return count


def ensure_admin_key(session: Session, *, pepper: bytes) -> NewKey | None:
    """Make a key with every scope if no usable one could make others; else nothing.

    One transaction, and one at a time, so that two first starts at once make one key.
    """
    take_turns(session, "admin key")
    if any("keys:admin" in key.scopes for key in repository.usable(session)):
        return None
    made = _add(session, pepper=pepper, name="admin", scopes=ALL_SCOPES, days=None)
    session.commit()
    _note("key_created", made.key)
    return made


def _note(action: str, key: ApiKey) -> None:
    """There is no caller, only the user of the system who runs the command."""
    logging.note(action, key=str(key.id), name=key.name, scopes=key.scopes, uid=os.getuid())


def _add(
    session: Session, *, pepper: bytes, name: str, scopes: Sequence[str], days: float | None
) -> NewKey:
    if not (name.strip() and name.isprintable() and len(name) <= LONGEST_NAME):
        raise KeyNameInvalid(most=LONGEST_NAME)
    for scope in scopes:
        if scope not in ALL_SCOPES:
            raise ScopeUnknown(scope=scope, available=", ".join(ALL_SCOPES))
    token = secrets.new_token(new_id())
    key = ApiKey(
        id=token.id,
        name=name,
        secret_hmac=token.digest(pepper),
        scopes=list(dict.fromkeys(scopes)),
        expires_at=None if days is None else read_clock(session) + days * 86_400,
    )
    session.add(key)
    session.flush()
    return NewKey(key=key, text=token.text)
