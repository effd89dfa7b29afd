"""Create and revoke API keys, for which there is no route, and start and end browser sessions."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from sqlalchemy.orm import Session

from app import logging
from app.auth import repository, secrets
from app.auth.errors import KeyNameInvalid, LocalKeyNotRevocable, SessionNotFound, UnknownScope
from app.auth.tables import ALL_SCOPES, LOCAL_KEY_ID, ApiKey, BrowserSession
from app.database.base import new_id, read_clock
from app.database.engines import acquire_transaction_lock, call_after_commit

MAX_NAME_LENGTH = 64  # characters


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A new API key. `text` is its token, which is shown once and never stored."""

    key: ApiKey
    text: str

    def __repr__(self) -> str:
        return f"CreatedKey({self.key.id})"


def create_key(
    session: Session,
    *,
    pepper: bytes,
    name: str,
    scopes: Sequence[str] = ALL_SCOPES,
    days: float | None = None,
) -> CreatedKey:
    """Create an API key with these scopes, which expires after `days`.

    Raises `KeyNameInvalid`, `UnknownScope`.
    """
    # `key/annotator` is an annotator of a key.
    if not (name.strip() and name.isprintable() and len(name) <= MAX_NAME_LENGTH) or "/" in name:
        raise KeyNameInvalid(max_length=MAX_NAME_LENGTH)
    for scope in scopes:
        if scope not in ALL_SCOPES:
            raise UnknownScope(scope=scope, available=", ".join(ALL_SCOPES))
    token = secrets.new_key_token(new_id())
    key = ApiKey(
        id=token.id,
        name=name,
        secret_hmac=token.digest(pepper),
        scopes=list(dict.fromkeys(scopes)),
        expires_at=None if days is None else read_clock(session) + days * 86_400,
    )
    session.add(key)
    session.flush()
    _audit(session, "key_created", key)
    return CreatedKey(key=key, text=token.text)


def revoke_key_and_sessions(session: Session, *, key_id: UUID) -> ApiKey:
    """Revoke an API key and end its sessions. Running services notice within a minute.

    Raises `KeyNotFound`, `LocalKeyNotRevocable`.
    """
    if key_id == LOCAL_KEY_ID:
        raise LocalKeyNotRevocable()
    key = repository.get_key(session, key_id)
    repository.revoke_key(session, key_id)
    repository.delete_session_or_key_sessions(session, key_id)
    session.refresh(key)
    _audit(session, "key_revoked", key)
    return key


def start_session_purging_expired(
    session: Session, *, pepper: bytes, key_id: UUID, seconds: float, idle_seconds: float
) -> secrets.Token:
    """Start a session for a browser that sent a valid API key. Also deletes expired sessions."""
    repository.delete_expired_sessions(session, idle_seconds=idle_seconds)
    token = secrets.new_session_token(new_id())
    session.add(
        BrowserSession(
            id=token.id,
            key_id=key_id,
            secret_hmac=token.digest(pepper),
            expires_at=read_clock(session) + seconds,
        )
    )
    call_after_commit(
        session,
        partial(
            logging.write_audit_line, "session_started", session=str(token.id), key=str(key_id)
        ),
    )
    return token


def end_session_or_key_sessions(session: Session, *, id_: UUID) -> int:
    """End one session, or all sessions of an API key. Running services notice within a minute.

    Returns the number of sessions. Raises `SessionNotFound`.
    """
    count = repository.delete_session_or_key_sessions(session, id_)
    if not count:
        raise SessionNotFound(session_id=id_)
    call_after_commit(
        session,
        partial(
            logging.write_audit_line, "sessions_ended", id=str(id_), count=count, uid=os.getuid()
        ),
    )
    return count


def create_first_key(session: Session, *, pepper: bytes) -> CreatedKey | None:
    """Create a key with all scopes, unless there is a usable key, whatever its scopes.

    Runs in one transaction under a lock, so that two concurrent first starts create only one key.
    """
    acquire_transaction_lock(session, "admin key")
    if repository.list_usable_keys(session):
        return None
    return create_key(session, pepper=pepper, name="admin")


def _audit(session: Session, action: str, key: ApiKey) -> None:
    """Log with the operating system's user: commands have no API caller."""
    fields = {"key": str(key.id), "name": key.name, "scopes": key.scopes, "uid": os.getuid()}
    call_after_commit(session, partial(logging.write_audit_line, action, **fields))
