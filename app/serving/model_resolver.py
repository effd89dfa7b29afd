"""Resolves model references to versions, with a cache that outlives a database outage."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from app.database.engines import Database
from app.database.single_flight import SingleFlight
from app.errors import AppError
from app.registry import service as registry
from app.registry.service import ResolvedModel

FRESH_SECONDS = 0.5  # a cached version is used without a query: promotions take effect soon
STALE_SECONDS = 600.0  # a cached version is used while the database is unavailable
DATABASE_TIMEOUT_SECONDS = 1.0
MAX_CACHED_REFS = 1024

OptionalRef = str | None  # None: the only model in production


@dataclass(frozen=True, slots=True)
class _CachedVersion:
    resolved: ResolvedModel
    read_at: float


class ModelResolver:
    """Resolves model references. Use on the event loop only."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._cache: dict[OptionalRef, _CachedVersion] = {}
        self._queries: SingleFlight[OptionalRef, _CachedVersion] = SingleFlight(
            timeout_seconds=DATABASE_TIMEOUT_SECONDS
        )

    async def resolve(self, ref: OptionalRef) -> ResolvedModel:
        """Return the version that `ref` names, or named last if the database is unavailable.

        Raises `ModelNotFound`, `InvalidModelRef`, `NoModelPromoted`, `ModelAmbiguous`.
        """
        cached = self._cache.get(ref)
        age = self._clock() - cached.read_at if cached else 0.0
        if cached and age < FRESH_SECONDS:
            return cached.resolved
        fallback = cached if age < STALE_SECONDS else None
        try:
            version = await self._queries.run(ref, lambda: self._query(ref), fallback=fallback)
        except AppError:
            self._cache.pop(ref, None)
            raise
        if version is not fallback:
            if len(self._cache) >= MAX_CACHED_REFS:
                self._cache.clear()
            self._cache[ref] = version
        return version.resolved

    def _query(self, ref: OptionalRef) -> _CachedVersion:
        read_at = self._clock()
        with self._database.read() as session:
            return _CachedVersion(registry.resolve_or_default(session, ref), read_at)
