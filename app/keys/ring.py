"""Keys checked a moment ago, so that a request needs no database.

A key is read anew after half a minute, so a revoked one is refused within a minute. While the
database is away a key that was good is trusted for ten minutes more.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hmac import compare_digest
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.db.clock import read_clock
from app.db.engines import Database
from app.db.lookups import Lookups
from app.deps import Caller
from app.keys import repository
from app.keys.errors import KeyExpired, KeyRevoked, KeyUnknown
from app.keys.secret import Token
from app.keys.tables import ApiKey

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
        digest = token.digest(self._pepper)
        fresh = self._recall(token.id, digest, FRESH_SECONDS)
        if fresh is not None:
            return fresh
        standby = self._recall(token.id, digest, STALE_SECONDS)
        look = partial(self._look_up, token.id, digest)
        # By its digest: who sends a wrong secret shares no one's look-up.
        return await self._lookups.ask(digest, look, standby=standby)

    def page_token(self, token: Token) -> str:
        """What a page shows to prove that it came from here, to who is signed in with a key."""
        return token.derived(self._pepper, "page")

    def _look_up(self, key_id: UUID, digest: str) -> Caller:
        """In a thread: the caller, from the database."""
        known = self._read(key_id, digest)
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[key_id] = known
        self._note_use(key_id)
        return known.caller

    def close(self) -> None:
        """Wait for what is still being written."""
        self._writer.shutdown()

    def _recall(self, key_id: UUID, digest: str, seconds: float) -> Caller | None:
        known = self._known.get(key_id)
        if known is None or not compare_digest(known.digest, digest):
            return None
        age = self._clock() - known.read_at
        return known.caller if age < min(seconds, known.expires_in) else None

    def _read(self, key_id: UUID, digest: str) -> _Known:
        read_at = self._clock()
        with self._database.read() as session:
            key = session.get(ApiKey, key_id)
            moment = read_clock(session)
        if key is None or not compare_digest(key.secret_hmac or "", digest):
            raise KeyUnknown()
        if key.revoked_at is not None:
            self._known.pop(key_id, None)
            raise KeyRevoked(name=key.name)
        expires_in = float("inf") if key.expires_at is None else key.expires_at - moment
        if expires_in <= 0:
            raise KeyExpired(name=key.name)
        return _Known(
            caller=Caller(id=key.id, name=key.name, scopes=frozenset(key.scopes)),
            digest=digest,
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
