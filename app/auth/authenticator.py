"""Cache of authenticated API keys and browser sessions, so that most requests skip the database.

Entries are reloaded after half a minute, so a revoked key is rejected within a minute. While the
database is unavailable, a cached entry stays valid for up to ten minutes.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from hmac import compare_digest
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.auth import repository, service
from app.auth.errors import (
    KeyExpired,
    KeyNotRecognized,
    KeyRevoked,
    SessionInvalid,
    SessionNotFound,
)
from app.auth.secrets import Token
from app.auth.tables import ApiKey, BrowserSession
from app.database.base import read_clock
from app.database.engines import Database
from app.database.single_flight import SingleFlight
from app.errors import Unauthorized
from app.http.dependencies import Caller

TTL_SECONDS = 30
STALE_IF_ERROR_SECONDS = 600  # maximum age of an entry while the database is unavailable
LOOKUP_TIMEOUT_SECONDS = 1.0  # how long to wait for the database if there is a stale entry
LAST_USED_INTERVAL_SECONDS = 300  # `last_used_at` is updated at most this often
MAX_ENTRIES = 1024

# (session, id, HMAC) → (caller, seconds until it expires)
_LoadCaller = Callable[[Session, UUID, str], tuple[Caller, float]]
_RecordUse = Callable[[Session, UUID], None]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _CacheEntry:
    caller: Caller
    digest: str
    expires_in: float  # seconds after `loaded_at`
    loaded_at: float


class Authenticator:
    """Authenticates API keys and sessions, and caches the valid ones. Use it on the event loop.

    A session expires `session_seconds` after its start, or after `idle_seconds` without use.
    """

    def __init__(
        self,
        database: Database,
        pepper: bytes,
        *,
        session_seconds: float,
        idle_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._pepper = pepper
        self._session_seconds = session_seconds
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._entries: dict[UUID, _CacheEntry] = {}
        self._lookups: SingleFlight[str, Caller] = SingleFlight(
            timeout_seconds=LOOKUP_TIMEOUT_SECONDS
        )
        self._use_recorded_at: dict[UUID, float] = {}
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="key-use")

    async def authenticate_key(self, token: Token) -> Caller:
        """Return the caller of an API key. Raises subclasses of `Unauthorized`."""
        return await self._authenticate(token, self._read_key, repository.record_key_use)

    async def authenticate_session(self, token: Token) -> Caller:
        """Return the caller of a browser session. Raises subclasses of `Unauthorized`."""
        return await self._authenticate(
            token, self._read_session, repository.record_session_and_key_use
        )

    async def sign_in(self, key: Token) -> Token:
        """Start a session for a valid API key. Raises subclasses of `Unauthorized`."""
        caller = await self.authenticate_key(key)
        return await run_in_threadpool(self._start_session, caller.id)

    async def sign_out(self, token: Token) -> None:
        """End the session, unless it has ended or the secret is wrong.

        Raises `KeyExpired`, `KeyRevoked`.
        """
        with suppress(SessionInvalid):
            await self.authenticate_session(token)
            await run_in_threadpool(self._end_session, token.id)
        self._entries.pop(token.id, None)

    def csrf_token(self, session: Token) -> str:
        """Return the token that a page must send, along with the cookie, to change something.

        It is derived with the server's pepper, so the cookie is not enough to compute it.
        """
        return session.derive_secret(self._pepper, "page")

    def close(self) -> None:
        """Wait for pending writes."""
        self._writer.shutdown()

    async def _authenticate(
        self, token: Token, load_caller: _LoadCaller, record_use: _RecordUse
    ) -> Caller:
        digest = token.digest(self._pepper)
        fresh = self._cached(token.id, digest, max_age=TTL_SECONDS)
        if fresh is not None:
            return fresh
        fallback = self._cached(token.id, digest, max_age=STALE_IF_ERROR_SECONDS)
        load = partial(self._load, token.id, digest, load_caller, record_use)
        # Keyed by digest, so that a request with a wrong secret never shares another's lookup.
        return await self._lookups.run(digest, load, fallback=fallback)

    def _load(
        self, id_: UUID, digest: str, load_caller: _LoadCaller, record_use: _RecordUse
    ) -> Caller:
        """Load the caller from the database and cache it. Runs in a thread."""
        loaded_at = self._clock()
        try:
            with self._database.read() as session:
                caller, expires_in = load_caller(session, id_, digest)
        except Unauthorized:
            entry = self._entries.get(id_)
            if entry is not None and compare_digest(entry.digest, digest):
                self._entries.pop(id_, None)
            raise
        if len(self._entries) >= MAX_ENTRIES:
            self._entries.clear()
        self._entries[id_] = _CacheEntry(caller, digest, expires_in, loaded_at)
        self._schedule_use_record(id_, record_use)
        return caller

    def _cached(self, id_: UUID, digest: str, *, max_age: float) -> Caller | None:
        entry = self._entries.get(id_)
        if entry is None or not compare_digest(entry.digest, digest):
            return None
        age = self._clock() - entry.loaded_at
        return entry.caller if age < min(max_age, entry.expires_in) else None

    def _read_key(self, session: Session, key_id: UUID, digest: str) -> tuple[Caller, float]:
        key = session.get(ApiKey, key_id)
        if key is None or not compare_digest(key.secret_hmac or "", digest):
            raise KeyNotRecognized()
        return self._to_caller(key, read_clock(session))

    def _read_session(self, session: Session, id_: UUID, digest: str) -> tuple[Caller, float]:
        row = session.get(BrowserSession, id_)
        if row is None or not compare_digest(row.secret_hmac, digest):
            raise SessionInvalid()
        now = read_clock(session)
        expires_in = min(row.expires_at, row.last_used_at + self._idle_seconds) - now
        if expires_in <= 0:
            raise SessionInvalid()
        caller, key_expires_in = self._to_caller(session.get_one(ApiKey, row.key_id), now)
        return replace(caller, signed_in=True), min(expires_in, key_expires_in)

    @staticmethod
    def _to_caller(key: ApiKey, now: float) -> tuple[Caller, float]:
        """Return the caller, and the seconds until the key expires."""
        if key.revoked_at is not None:
            raise KeyRevoked(name=key.name)
        expires_in = float("inf") if key.expires_at is None else key.expires_at - now
        if expires_in <= 0:
            raise KeyExpired(name=key.name)
        return Caller(id=key.id, name=key.name, scopes=frozenset(key.scopes)), expires_in

    def _start_session(self, key_id: UUID) -> Token:
        with self._database.write() as session:
            return service.start_session_purging_expired(
                session,
                pepper=self._pepper,
                key_id=key_id,
                seconds=self._session_seconds,
                idle_seconds=self._idle_seconds,
            )

    def _end_session(self, id_: UUID) -> None:
        with suppress(SessionNotFound), self._database.write() as session:
            service.end_session_or_key_sessions(session, id_=id_)

    def _schedule_use_record(self, id_: UUID, record_use: _RecordUse) -> None:
        """Record the use in the background: a request must not wait for the single writer."""
        now = self._clock()
        last_recorded_at = self._use_recorded_at.get(id_, float("-inf"))
        if now - last_recorded_at >= LAST_USED_INTERVAL_SECONDS:
            if len(self._use_recorded_at) >= MAX_ENTRIES:
                self._use_recorded_at.clear()
            self._use_recorded_at[id_] = now
            self._writer.submit(self._write_use, id_, record_use)

    def _write_use(self, id_: UUID, record_use: _RecordUse) -> None:
        try:
            with self._database.write() as session:
                record_use(session, id_)
        except SQLAlchemyError:
            log.warning("key_use_not_recorded", id=str(id_))
