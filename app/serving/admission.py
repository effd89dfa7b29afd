"""How many texts may be on their way. Whoever finds no room is refused at once."""

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from app.serving.errors import Busy, KeyBusy, QuotaUsed

FLOOR_TOKENS = 32_768  # may wait, however slow the machine: 64 texts of 512 tokens
_MARGIN = 0.5  # of a timeout may be spent waiting: the speed is an estimate
_LONGEST = 30  # seconds that a caller is told to wait at most
_JITTER = 0.2  # so that those who were refused together do not come back together


@dataclass
class Place:
    """Room for one call."""

    texts: int
    tokens: int  # an upper bound, until the texts are tokenised


class Admission:
    """Room between the door and the answer.

    It is taken before anything is looked up, loaded or tokenised, so that a refusal costs nothing;
    until then a text counts with the most tokens that it could have. Used on the event loop only.
    """

    def __init__(
        self,
        *,
        most_texts: int,
        most_seconds: float,
        share: float,
        tokens_per_second: Callable[[], float | None],
    ) -> None:
        self.texts = self.tokens = 0
        self._most_texts = most_texts
        self._most_seconds = most_seconds
        self._share = share
        self._speed = tokens_per_second
        self._texts_of: Counter[UUID] = Counter()
        self._tokens_of: Counter[UUID] = Counter()

    def check(self, caller: UUID, *, texts: int, tokens: int, timeout: float = math.inf) -> None:
        """Raises `Busy`, or `KeyBusy` if this caller alone is the cause; both say when to return.

        `timeout`: seconds after which the caller has no use for the answer. With nothing under way
        everything is let in.
        """
        most_tokens = self._most_tokens(timeout)
        if self.texts and (
            self.texts + texts > self._most_texts or self.tokens + tokens > most_tokens
        ):
            raise Busy(waiting=self.texts, retry_after=self._advice())
        mine, my_tokens = self._texts_of[caller], self._tokens_of[caller]
        if mine and (
            mine + texts > self._share * self._most_texts
            or my_tokens + tokens > self._share * most_tokens
        ):
            raise KeyBusy(waiting=mine, retry_after=self._advice())

    @contextmanager
    def place(
        self, caller: UUID, *, texts: int, tokens: int, timeout: float = math.inf
    ) -> Iterator[Place]:
        """Room, as long as the block lasts. Raises what `check` raises."""
        self.check(caller, texts=texts, tokens=tokens, timeout=timeout)
        place = Place(0, 0)
        self._change(place, caller, texts=texts, tokens=tokens)
        try:
            yield place
        finally:
            self._change(place, caller, texts=-place.texts, tokens=-place.tokens)

    def correct(self, place: Place, caller: UUID, tokens: int) -> None:
        """Its texts are tokenised: they have so many."""
        self._change(place, caller, texts=0, tokens=tokens - place.tokens)

    def _change(self, place: Place, caller: UUID, *, texts: int, tokens: int) -> None:
        place.texts += texts
        place.tokens += tokens
        self.texts += texts
        self.tokens += tokens
        for counts, change in ((self._texts_of, texts), (self._tokens_of, tokens)):
            counts[caller] += change
            if not counts[caller]:
                del counts[caller]

    def _most_tokens(self, timeout: float) -> float:
        """That may be under way together with a question that must be answered in `timeout`."""
        speed = self._speed()
        if speed is None:
            return FLOOR_TOKENS
        in_time = _MARGIN * timeout * speed
        return min(in_time, max(FLOOR_TOKENS, self._most_seconds * speed))

    def _advice(self) -> int:
        """Seconds until what waits now is computed, for `Retry-After`."""
        seconds = self.tokens / (self._speed() or FLOOR_TOKENS)
        jittered = seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311
        return min(max(math.ceil(jittered), 1), _LONGEST)


# MERGED app.serving.admission
# How many texts a second each key may send (a token bucket per key).

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
