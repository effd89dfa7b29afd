"""Work in threads and children that several callers want at a time: how much of it runs and waits.

Reads of rows have slots of their own, so that they cannot delay uploads and imports. Work whose
caller has left is cancelled: what waits never starts, and `app.sandbox.process.run` kills its
child.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from uuid import UUID

import anyio
from fastapi import Request

from app.errors import KeyQueueFull, QueueFull
from app.http.disconnect import cancelled_on_disconnect
from app.settings import Settings

AT_A_TIME = 2  # of each kind; each child may take its share of memory
RETRY_SECONDS = 5  # what a caller that finds no room is told to wait

T = TypeVar("T")


class Slots:
    """So much runs at a time; so much may run or wait, in all and for each key.

    Used on one event loop only.
    """

    def __init__(self, *, most: int, most_of_a_key: int) -> None:
        self._limiter = anyio.CapacityLimiter(AT_A_TIME)
        self._most = most
        self._most_of_a_key = most_of_a_key
        self._pending: Counter[UUID] = Counter()  # by key

    async def run(self, caller: UUID, work: Callable[[], T]) -> T:
        """The result of `work`, in a thread. Raises `KeyQueueFull`, `QueueFull`, and what it
        raises."""
        async with self._place(caller):
            return await anyio.to_thread.run_sync(work, limiter=self._limiter)

    @asynccontextmanager
    async def _place(self, caller: UUID) -> AsyncIterator[None]:
        if self._pending[caller] >= self._most_of_a_key:
            raise KeyQueueFull(limit=self._most_of_a_key, retry_after=RETRY_SECONDS)
        if self._pending.total() >= self._most:
            raise QueueFull(limit=self._most, retry_after=RETRY_SECONDS)
        self._pending[caller] += 1
        try:
            yield
        finally:
            self._pending[caller] -= 1
            if not self._pending[caller]:
                del self._pending[caller]


class WorkSlots:
    """The slots of a process."""

    def __init__(self, settings: Settings) -> None:
        """On the event loop."""
        self.reads = Slots(most=settings.max_reads, most_of_a_key=settings.key_reads)
        self.checks = Slots(most=settings.max_checks, most_of_a_key=settings.max_checks)


class Work:
    """Runs the work of one request in the slots of the process."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._slots: WorkSlots = request.app.state.work_slots
        self._caller: UUID = request.state.caller.id

    async def read(self, work: Callable[[], T]) -> T:
        """Read a file that was uploaded. A GET ends with its connection by itself."""
        return await self._slots.reads.run(self._caller, work)

    async def check(self, work: Callable[[], T]) -> T:
        """Check what was sent. Nothing is kept if the caller leaves before the check has ended."""
        async with cancelled_on_disconnect(self._request.receive):
            return await self._slots.checks.run(self._caller, work)
