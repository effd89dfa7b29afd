"""Concurrency limits for blocking work that requests run in threads or child processes.

Reads of data set rows have limits of their own, so that they cannot delay uploads and imports. When
the client disconnects, its work is cancelled: queued work never starts, and
`app.sandbox.process.run_child` kills the child process.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from uuid import UUID

import anyio
from fastapi import Request

from app.errors import KeyQueueFull, QueueFull
from app.http.disconnect import cancel_on_disconnect
from app.settings import Settings

MAX_RUNNING = 2  # per limiter, because each child process may use much memory
RETRY_AFTER_SECONDS = 5

ResultT = TypeVar("ResultT")


class ConcurrencyLimiter:
    """Limits how much work runs at once, and how much may run or wait, in total and per API key.

    Use an instance on one event loop only.
    """

    def __init__(self, *, max_pending: int, max_pending_per_key: int) -> None:
        self._limiter = anyio.CapacityLimiter(MAX_RUNNING)
        self._max_pending = max_pending
        self._max_pending_per_key = max_pending_per_key
        self._pending: Counter[UUID] = Counter()  # by API key

    async def run(self, caller: UUID, work: Callable[[], ResultT]) -> ResultT:
        """Run `work` in a thread and return its result.

        Raises `KeyQueueFull`, `QueueFull`, and whatever `work` raises.
        """
        async with self._pending_slot(caller):
            return await anyio.to_thread.run_sync(work, limiter=self._limiter)

    @asynccontextmanager
    async def _pending_slot(self, caller: UUID) -> AsyncIterator[None]:
        if self._pending[caller] >= self._max_pending_per_key:
            raise KeyQueueFull(limit=self._max_pending_per_key, retry_after=RETRY_AFTER_SECONDS)
        if self._pending.total() >= self._max_pending:
            raise QueueFull(limit=self._max_pending, retry_after=RETRY_AFTER_SECONDS)
        self._pending[caller] += 1
        try:
            yield
        finally:
            self._pending[caller] -= 1
            if not self._pending[caller]:
                del self._pending[caller]


class ConcurrencyLimits:
    """The concurrency limiters of a process. Create it on the event loop."""

    def __init__(self, settings: Settings) -> None:
        self.reads = ConcurrencyLimiter(
            max_pending=settings.max_reads, max_pending_per_key=settings.key_reads
        )
        self.checks = ConcurrencyLimiter(
            max_pending=settings.max_checks, max_pending_per_key=settings.max_checks
        )


class RequestExecutor:
    """Runs the blocking work of one request within the limits of the process."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._limits: ConcurrencyLimits = request.app.state.concurrency_limits
        self._caller: UUID = request.state.caller.id

    async def run_read(self, work: Callable[[], ResultT]) -> ResultT:
        """Read an uploaded file. Middleware already cancels a GET when its client disconnects."""
        return await self._limits.reads.run(self._caller, work)

    async def run_check(self, work: Callable[[], ResultT]) -> ResultT:
        """Check an upload or import. Nothing is stored if the client disconnects before the end."""
        async with cancel_on_disconnect(self._request.receive):
            return await self._limits.checks.run(self._caller, work)
