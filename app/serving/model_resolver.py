"""What model references mean: known for a moment, and for longer while the database is away."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from app.database.engines import Database
from app.database.single_flight import Lookups
from app.errors import AppError
from app.registry import service as registry
from app.registry.service import Resolved

FRESH_SECONDS = 0.5  # no other look at the database for so long: a promotion is seen soon after
STALE_SECONDS = 600.0  # only while the database is away
PATIENCE_SECONDS = 1.0  # with a database that does not answer
REMEMBERED = 1024

Ref = str | None  # None: the only model in production


@dataclass(frozen=True, slots=True)
class _Known:
    resolved: Resolved
    read_at: float


class Meanings:
    """References → versions. Used on the event loop only."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._known: dict[Ref, _Known] = {}
        self._lookups: Lookups[Ref, _Known] = Lookups(patience_seconds=PATIENCE_SECONDS)

    async def of(self, ref: Ref) -> Resolved:
        """The version that `ref` means now, or meant last if the database is away.

        Raises `ModelNotFound`, `InvalidModelRef`, `NoModelPromoted`, `ModelAmbiguous`.
        """
        known = self._known.get(ref)
        age = self._clock() - known.read_at if known else 0.0
        if known and age < FRESH_SECONDS:
            return known.resolved
        standby = known if age < STALE_SECONDS else None
        try:
            found = await self._lookups.ask(ref, lambda: self._look_up(ref), standby=standby)
        except AppError:
            self._known.pop(ref, None)
            raise
        if found is not standby:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[ref] = found
        return found.resolved

    def _look_up(self, ref: Ref) -> _Known:
        read_at = self._clock()
        with self._database.read() as session:
            return _Known(registry.find(session, ref), read_at)
