"""How many texts a second each key may send (a token bucket per key)."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from app.serving.errors import QuotaUsed

BURST_SECONDS = 10.0  # of the quota may come at once
_REMEMBERED = 10_000  # keys


@dataclass(slots=True)
class _Bucket:
    level: float  # texts that may come now; below zero after a call larger than the burst
    at: float


class Quota:
    """None: no limit. Used on the event loop only."""

    def __init__(
        self, texts_per_second: float | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._speed = texts_per_second
        self._clock = clock
        self._buckets: dict[UUID, _Bucket] = {}

    def take(self, caller: UUID, texts: int) -> None:
        """Raises `QuotaUsed`, which says when it is worth trying again.

        A call larger than the burst is let in with a full bucket, and paid for afterwards.
        """
        if self._speed is None:
            return
        full, now = self._speed * BURST_SECONDS, self._clock()
        bucket = self._buckets.get(caller)
        if bucket is None:
            if len(self._buckets) >= _REMEMBERED:
                self._forget_full(full, now)
            bucket = self._buckets[caller] = _Bucket(full, now)
        bucket.level = min(full, bucket.level + (now - bucket.at) * self._speed)
        bucket.at = now
        needed = min(texts, full)
        if bucket.level < needed:
            wait = (needed - bucket.level) / self._speed
            raise QuotaUsed(quota=self._speed, retry_after=max(1, math.ceil(wait)))
        bucket.level -= texts

    def _forget_full(self, full: float, now: float) -> None:
        assert self._speed is not None  # noqa: S101
        for caller, bucket in list(self._buckets.items()):
            if bucket.level + (now - bucket.at) * self._speed >= full:
                del self._buckets[caller]
