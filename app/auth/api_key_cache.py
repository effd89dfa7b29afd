"""Keys and sessions checked a moment ago, so that a request needs no database.

Each is read anew after half a minute, so a revoked one is refused within a minute. While the
database is away one that was good is trusted for ten minutes more.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hmac import compare_digest
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.auth import repository, service
from app.auth.errors import KeyExpired, KeyRevoked, KeyUnknown, SessionEnded, SessionNotFound
from app.auth.secrets import Token
from app.auth.tables import ApiKey, BrowserSession
from app.database.clock import read_clock
from app.database.engines import Database
from app.database.single_flight import Lookups
from app.errors import Unauthorized
from app.http.dependencies import Caller

FRESH_SECONDS = 30
STALE_SECONDS = 600  # only while the database is away
PATIENCE_SECONDS = 1.0  # with a database that does not answer
TOUCH_SECONDS = 300  # `last_used_at` is that coarse
REMEMBERED = 1024

Read = Callable[[Session, UUID, str], tuple[Caller, float]]  # by id and HMAC; seconds it is good
Touch = Callable[[Session, UUID], None]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Known:
    caller: Caller
    digest: str
    expires_in: float  # seconds from `read_at`
    read_at: float


class ApiKeyCache:
    """Checks keys and sessions against the database and remembers the good ones. Used on the event
    loop.

    A session ends `session_seconds` after its start, or once it was not used for `idle_seconds`.
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
        self._known: dict[UUID, _Known] = {}
        self._lookups: Lookups[str, Caller] = Lookups(patience_seconds=PATIENCE_SECONDS)
        self._touched: dict[UUID, float] = {}
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="key-use")

    async def caller(self, token: Token) -> Caller:
        """Whose key it is. Raises a kind of `Unauthorized`."""
        return await self._check(token, self._read_key, repository.touch)

    async def reader(self, token: Token) -> Caller:
        """In whose name a session reads. Raises a kind of `Unauthorized`."""
        return await self._check(token, self._read_session, repository.touch_session)

    async def sign_in(self, key: Token) -> Token:
        """A new session, once the key is known to be good. Raises a kind of `Unauthorized`."""
        caller = await self.caller(key)
        return await run_in_threadpool(self._start_session, caller.id)

    async def sign_out(self, token: Token) -> None:
        """End the session; one that has ended already is no error. Raises a kind of
        `Unauthorized` if the secret is wrong."""
        with suppress(SessionEnded):
            await self.reader(token)
            await run_in_threadpool(self._end_session, token.id)
        self._known.pop(token.id, None)

    def page_token(self, session: Token) -> str:
        """What a page sends, beside the cookie, to change something.

        It needs the server's pepper, so who holds only the cookie cannot make it.
        """
        return session.derived(self._pepper, "page")

    def close(self) -> None:
        """Wait for what is still being written."""
        self._writer.shutdown()

    async def _check(self, token: Token, read: Read, touch: Touch) -> Caller:
        digest = token.digest(self._pepper)
        fresh = self._recall(token.id, digest, FRESH_SECONDS)
        if fresh is not None:
            return fresh
        standby = self._recall(token.id, digest, STALE_SECONDS)
        look = partial(self._look_up, token.id, digest, read, touch)
        # By its digest: who sends a wrong secret shares no one's look-up.
        return await self._lookups.ask(digest, look, standby=standby)

    def _look_up(self, id_: UUID, digest: str, read: Read, touch: Touch) -> Caller:
        """In a thread: the caller, from the database."""
        read_at = self._clock()
        try:
            with self._database.read() as session:
                caller, expires_in = read(session, id_, digest)
        except Unauthorized:
            known = self._known.get(id_)
            if known is not None and compare_digest(known.digest, digest):
                self._known.pop(id_, None)
            raise
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[id_] = _Known(caller, digest, expires_in, read_at)
        self._note_use(id_, touch)
        return caller

    def _recall(self, id_: UUID, digest: str, seconds: float) -> Caller | None:
        known = self._known.get(id_)
        if known is None or not compare_digest(known.digest, digest):
            return None
        age = self._clock() - known.read_at
        return known.caller if age < min(seconds, known.expires_in) else None

    def _read_key(self, session: Session, key_id: UUID, digest: str) -> tuple[Caller, float]:
        key = session.get(ApiKey, key_id)
        if key is None or not compare_digest(key.secret_hmac or "", digest):
            raise KeyUnknown()
        return self._usable(key, read_clock(session))

    def _read_session(self, session: Session, id_: UUID, digest: str) -> tuple[Caller, float]:
        row = session.get(BrowserSession, id_)
        if row is None or not compare_digest(row.secret_hmac, digest):
            raise SessionEnded()
        moment = read_clock(session)
        expires_in = min(row.expires_at, row.last_used_at + self._idle_seconds) - moment
        if expires_in <= 0:
            raise SessionEnded()
        caller, key_expires_in = self._usable(session.get_one(ApiKey, row.key_id), moment)
        return caller, min(expires_in, key_expires_in)

    @staticmethod
    def _usable(key: ApiKey, moment: float) -> tuple[Caller, float]:
        """The caller, and for how many seconds from `moment` the key is good."""
        if key.revoked_at is not None:
            raise KeyRevoked(name=key.name)
        expires_in = float("inf") if key.expires_at is None else key.expires_at - moment
        if expires_in <= 0:
            raise KeyExpired(name=key.name)
        return Caller(id=key.id, name=key.name, scopes=frozenset(key.scopes)), expires_in

    def _start_session(self, key_id: UUID) -> Token:
        with self._database.write() as session:
            return service.start_session(
                session,
                pepper=self._pepper,
                key_id=key_id,
                seconds=self._session_seconds,
                idle_seconds=self._idle_seconds,
            )

    def _end_session(self, id_: UUID) -> None:
        with suppress(SessionNotFound), self._database.write() as session:
            service.end_sessions(session, id_=id_)

    def _note_use(self, id_: UUID, touch: Touch) -> None:
        """In the background: a request does not wait for the one writer of the database."""
        now = self._clock()
        if now - self._touched.get(id_, float("-inf")) >= TOUCH_SECONDS:
            if len(self._touched) >= REMEMBERED:
                self._touched.clear()
            self._touched[id_] = now
            self._writer.submit(self._touch, id_, touch)

    def _touch(self, id_: UUID, touch: Touch) -> None:
        try:
            with self._database.write() as session:
                touch(session, id_)
                session.commit()
        except SQLAlchemyError:
            log.warning("key_use_not_noted", id=str(id_))
