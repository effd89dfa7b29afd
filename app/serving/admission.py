"""Timeouts, admission control and rate limits: requests over capacity are rejected at once."""

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from app.http.dependencies import get_app_state, get_caller
from app.serving.errors import (
    ApiKeyShareExceeded,
    InvalidTimeout,
    RateLimitExceeded,
    ServerOverloaded,
)

_MAX_TIMEOUT_SECONDS = 30.0
# May wait on a slow machine, too, if the timeout allows it: 64 texts of 512 tokens.
MIN_TOKEN_LIMIT = 32_768
BURST_SECONDS = 10.0  # of the rate limit that may be used at once
_MAX_WAIT_SHARE = 0.5  # of a timeout; the throughput is only an estimate
_MAX_RETRY_AFTER_SECONDS = 30
_JITTER = 0.2  # of Retry-After, so that clients rejected together do not return together
_MAX_BUCKETS = 10_000  # API keys


def parse_timeout(header: str | None) -> float:
    """Return the timeout in seconds from the header of a request. Raises `InvalidTimeout`."""
    if header is None:
        return _MAX_TIMEOUT_SECONDS
    try:
        seconds = float(header)
    except ValueError:
        raise InvalidTimeout() from None
    if not (math.isfinite(seconds) and seconds > 0):
        raise InvalidTimeout()
    return min(seconds, _MAX_TIMEOUT_SECONDS)


@dataclass
class Reservation:
    """The capacity that one request holds."""

    texts: int
    tokens: int  # an estimate until the texts are tokenized


class AdmissionController:
    """Limits the texts and tokens in flight, from a parsed body until its texts are computed.

    Capacity is reserved before anything is looked up, loaded or tokenized, so that a rejection is
    cheap; until then the tokens are estimated, and more than that are checked again. Use on the
    event loop only.

    Args:
        max_texts: Texts in flight, of all API keys.
        max_wait_seconds: Limits the tokens in flight to what is computed in this time, or to
            `MIN_TOKEN_LIMIT` if that is more. Half of a request's timeout is a limit in any case.
        key_share: Share of both limits that one API key may use.
        tokens_per_second: Returns the measured throughput, None before the first batch.
    """

    def __init__(
        self,
        *,
        max_texts: int,
        max_wait_seconds: float,
        key_share: float,
        tokens_per_second: Callable[[], float | None],
    ) -> None:
        self.texts = self.tokens = 0  # in flight
        self._max_texts = max_texts
        self._max_wait_seconds = max_wait_seconds
        self._key_share = key_share
        self._tokens_per_second = tokens_per_second
        self._key_texts: Counter[UUID] = Counter()
        self._key_tokens: Counter[UUID] = Counter()

    def check(self, key_id: UUID, *, texts: int, tokens: int, timeout: float = math.inf) -> None:
        """Raise `ServerOverloaded`, or `ApiKeyShareExceeded` if this API key uses up its share.

        `timeout` is the time in seconds after which the client has no use for the response. With
        nothing in flight every request is admitted.
        """
        max_tokens = self._max_tokens(timeout)
        if self.texts and (
            self.texts + texts > self._max_texts or self.tokens + tokens > max_tokens
        ):
            raise ServerOverloaded(waiting=self.texts, retry_after=self._retry_after())
        key_texts, key_tokens = self._key_texts[key_id], self._key_tokens[key_id]
        if key_texts and (
            key_texts + texts > self._key_share * self._max_texts
            or key_tokens + tokens > self._key_share * max_tokens
        ):
            raise ApiKeyShareExceeded(waiting=key_texts, retry_after=self._retry_after())

    @contextmanager
    def reserve(
        self, key_id: UUID, *, texts: int, tokens: int, timeout: float = math.inf
    ) -> Iterator[Reservation]:
        """Reserve capacity for the duration of the block. Raises what `check` raises."""
        self.check(key_id, texts=texts, tokens=tokens, timeout=timeout)
        reservation = Reservation(0, 0)
        self._adjust(reservation, key_id, texts=texts, tokens=tokens)
        try:
            yield reservation
        finally:
            self._adjust(reservation, key_id, texts=-reservation.texts, tokens=-reservation.tokens)

    def set_tokens(
        self, reservation: Reservation, key_id: UUID, tokens: int, *, timeout: float = math.inf
    ) -> None:
        """Replace the estimate of a reservation by the actual number of tokens.

        Raises what `check` raises if that is more, and there is no room for it.
        """
        texts, estimate = reservation.texts, reservation.tokens
        self._adjust(reservation, key_id, texts=-texts, tokens=-estimate)
        try:
            if tokens > estimate:
                self.check(key_id, texts=texts, tokens=tokens, timeout=timeout)
        finally:
            self._adjust(reservation, key_id, texts=texts, tokens=tokens)

    def _adjust(self, reservation: Reservation, key_id: UUID, *, texts: int, tokens: int) -> None:
        reservation.texts += texts
        reservation.tokens += tokens
        self.texts += texts
        self.tokens += tokens
        for counts, change in ((self._key_texts, texts), (self._key_tokens, tokens)):
            counts[key_id] += change
            if not counts[key_id]:
                del counts[key_id]

    def _max_tokens(self, timeout: float) -> float:
        """Return the limit of tokens in flight, including a request with this timeout."""
        throughput = self._tokens_per_second()
        if throughput is None:
            return MIN_TOKEN_LIMIT
        in_time = _MAX_WAIT_SHARE * timeout * throughput
        return min(in_time, max(MIN_TOKEN_LIMIT, self._max_wait_seconds * throughput))

    def _retry_after(self) -> int:
        """Return the seconds until the tokens in flight are computed, for `Retry-After`."""
        seconds = self.tokens / (self._tokens_per_second() or MIN_TOKEN_LIMIT)
        jittered = seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311
        return min(max(math.ceil(jittered), 1), _MAX_RETRY_AFTER_SECONDS)


@dataclass(slots=True)
class _TokenBucket:
    level: float  # texts that may come now; negative after a request larger than the burst
    updated_at: float


class KeyRateLimiter:
    """Limits the texts per second of each API key by a token bucket. None: no limit.

    Use on the event loop only.
    """

    def __init__(
        self, texts_per_second: float | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = texts_per_second
        self._clock = clock
        self._buckets: dict[UUID, _TokenBucket] = {}

    def acquire(self, key_id: UUID, texts: int) -> None:
        """Take `texts` from the bucket of the API key. Raises `RateLimitExceeded`.

        A request larger than the burst is admitted if the bucket is full, and puts it into debt.
        """
        if self._rate is None:
            return
        capacity, now = self._rate * BURST_SECONDS, self._clock()
        bucket = self._buckets.get(key_id)
        if bucket is None:
            if len(self._buckets) >= _MAX_BUCKETS:
                self._evict_full(capacity, now)
            bucket = self._buckets[key_id] = _TokenBucket(capacity, now)
        bucket.level = min(capacity, bucket.level + (now - bucket.updated_at) * self._rate)
        bucket.updated_at = now
        required = min(texts, capacity)
        if bucket.level < required:
            wait = (required - bucket.level) / self._rate
            raise RateLimitExceeded(quota=self._rate, retry_after=max(1, math.ceil(wait)))
        bucket.level -= texts

    def _evict_full(self, capacity: float, now: float) -> None:
        assert self._rate is not None  # noqa: S101
        for key_id, bucket in list(self._buckets.items()):
            if bucket.level + (now - bucket.updated_at) * self._rate >= capacity:
                del self._buckets[key_id]


class LoadSheddingMiddleware:
    """Rejects predictions at capacity before they are routed and read.

    Under overload most requests end here. Each of them takes the interpreter lock from the threads
    that compute, so rejections must be cheap: after routing they take twice as long. `routes` are
    those that run a model; they find the timeout of the client in `request.state.timeout`.
    """

    def __init__(self, app: ASGIApp, *, routes: Sequence[BaseRoute]) -> None:
        self.app = app
        self.routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises `ServerOverloaded`, `ApiKeyShareExceeded` and `InvalidTimeout`."""
        if scope["type"] == "http" and (route := self._matching_route(scope)) is not None:
            service = get_app_state(scope["app"]).serving
            scope["route"] = route  # labels a rejection in the request metrics
            headers = Headers(scope=scope)
            content_length = headers.get("content-length", "")
            body_bytes = int(content_length) if content_length.isdecimal() else None
            timeout = parse_timeout(headers.get("x-request-timeout"))
            scope["state"]["timeout"] = timeout
            service.check_capacity(get_caller(scope).id, body_bytes, timeout=timeout)
        await self.app(scope, receive, send)

    def _matching_route(self, scope: Scope) -> BaseRoute | None:
        return next((r for r in self.routes if r.matches(scope)[0] is Match.FULL), None)
