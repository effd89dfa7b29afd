"""Keys checked a moment ago, so that a request needs no database.

A key is read anew after half a minute, so a revoked one is refused within a minute. While the
database is away a key that was good is trusted for ten minutes more.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.db.engines import Database
from app.db.lookups import Lookups
from app.deps import Caller
from app.keys import repository
from app.keys.errors import KeyExpired, KeyRevoked, KeyUnknown
from app.keys.secret import Token

FRESH_SECONDS = 30
STALE_SECONDS = 600  # only while the database is away
PATIENCE_SECONDS = 1.0  # with a database that does not answer
TOUCH_SECONDS = 300  # `last_used_at` is that coarse
REMEMBERED = 1024

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Known:
    caller: Caller
    digest: str
    expires_in: float  # seconds from `read_at`
    read_at: float


class KeyRing:
    """Checks keys against the database and remembers the good ones. Used on the event loop."""

    def __init__(
        self, database: Database, pepper: bytes, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._pepper = pepper
        self._clock = clock
        self._known: dict[UUID, _Known] = {}
        self._lookups: Lookups[str, Caller] = Lookups(patience_seconds=PATIENCE_SECONDS)
        self._touched: dict[UUID, float] = {}
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="key-use")

    async def caller(self, token: Token) -> Caller:
        """Whose key it is. Raises a kind of `Unauthorized`."""
        fresh = self._recall(token, FRESH_SECONDS)
        if fresh is not None:
            return fresh
        standby = self._recall(token, STALE_SECONDS)
        digest = token.digest(self._pepper)  # who sends a wrong secret shares no one's look-up
        return await self._lookups.ask(digest, lambda: self._look_up(token), standby=standby)

    def _look_up(self, token: Token) -> Caller:
        """In a thread: the caller, from the database."""
        known = self._read(token)
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[token.id] = known
        self._note_use(token.id)
        return known.caller

    def close(self) -> None:
        """Wait for what is still being written."""
        self._writer.shutdown()

    def _recall(self, token: Token, seconds: float) -> Caller | None:
        known = self._known.get(token.id)
        if known is None or not token.matches(known.digest, self._pepper):
            return None
        age = self._clock() - known.read_at
        return known.caller if age < min(seconds, known.expires_in) else None

    def _read(self, token: Token) -> _Known:
        read_at = self._clock()
        with self._database.read() as session:
            key = repository.find(session, token.id)
            moment = repository.moment(session)
        if key is None or not token.matches(key.secret_hmac, self._pepper):
            raise KeyUnknown()
        if key.revoked_at is not None:
            self._known.pop(token.id, None)
            raise KeyRevoked(name=key.name)
        expires_in = float("inf") if key.expires_at is None else key.expires_at - moment
        if expires_in <= 0:
            raise KeyExpired(name=key.name)
        return _Known(
            caller=Caller(id=key.id, name=key.name, scopes=frozenset(key.scopes)),
            digest=key.secret_hmac or "",
            expires_in=expires_in,
            read_at=read_at,
        )

    def _note_use(self, key_id: UUID) -> None:
        """In the background: a request does not wait for the one writer of the database."""
        now = self._clock()
        if now - self._touched.get(key_id, float("-inf")) >= TOUCH_SECONDS:
            self._touched[key_id] = now
            self._writer.submit(self._touch, key_id)

    def _touch(self, key_id: UUID) -> None:
        try:
            with self._database.write() as session:
                repository.touch(session, key_id)
                session.commit()
        except SQLAlchemyError:
            log.warning("key_use_not_noted", key_id=str(key_id))
