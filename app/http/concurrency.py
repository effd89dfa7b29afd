"""Blocking work that requests run in threads or child processes: its limits, and its cancellation.

Reads of dataset rows have limits of their own, so that they cannot delay uploads and imports. When
the client disconnects, its work is cancelled: queued work never starts, and
`app.sandbox.process.run_child` kills the child process.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from uuid import UUID

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import ClientDisconnected, QueueFull, TooManyRequestsForKey
from app.settings import Settings

SAFE_METHODS = frozenset({"GET", "HEAD"})


@asynccontextmanager
async def cancel_on_disconnect(receive: Receive) -> AsyncIterator[None]:
    """Cancel the block when the client disconnects, and then raise `ClientDisconnected`.

    Work in a thread continues until it calls `anyio.from_thread.check_cancelled`.
    """
    with anyio.CancelScope() as scope:
        watcher = asyncio.create_task(_cancel_when_disconnected(receive, scope))
        try:
            yield
        finally:
            watcher.cancel()
    if scope.cancelled_caught:
        raise ClientDisconnected()


async def _cancel_when_disconnected(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


class CancelOnDisconnectMiddleware:
    """ASGI middleware that cancels a GET or HEAD request when its client disconnects.

    It cancels requests that wait for a thread, too. Other methods are left to their routes.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in SAFE_METHODS:
            await self.app(scope, receive, send)
            return
        channel = _ReadAheadChannel(receive, send)
        try:
            async with cancel_on_disconnect(channel.read_ahead):
                await self.app(scope, channel.receive, channel.send)
        except ClientDisconnected:
            if not channel.response_started:  # otherwise there is nothing to respond or to log
                raise


class _ReadAheadChannel:
    """Reads messages ahead, to notice a disconnect early, and passes them on to the application."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self.response_started = self._response_complete = False

    async def read_ahead(self) -> Message:
        """Return the next message. Blocks forever after the response is complete, because the
        server then reports a disconnect."""
        message = await self._receive()
        self._messages.put_nowait(message)
        if message.get("more_body"):
            await self._messages.join()  # buffer at most one chunk of the body
        if self._response_complete:
            await asyncio.Event().wait()
        return message

    async def receive(self) -> Message:
        message = await self._messages.get()
        self._messages.task_done()
        if message["type"] == "http.disconnect":
            self._messages.put_nowait(message)  # further calls receive it again
        return message

    async def send(self, message: Message) -> None:
        self.response_started = True
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._response_complete = True
        await self._send(message)


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

        Raises `TooManyRequestsForKey`, `QueueFull`, and whatever `work` raises.
        """
        async with self._pending_slot(caller):
            return await anyio.to_thread.run_sync(work, limiter=self._limiter)

    @asynccontextmanager
    async def _pending_slot(self, caller: UUID) -> AsyncIterator[None]:
        if self._pending[caller] >= self._max_pending_per_key:
            raise TooManyRequestsForKey(
                limit=self._max_pending_per_key, retry_after=RETRY_AFTER_SECONDS
            )
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
            max_pending=settings.max_reads, max_pending_per_key=settings.max_reads_per_key
        )
        self.checks = ConcurrencyLimiter(
            max_pending=settings.max_checks, max_pending_per_key=settings.max_checks
        )


class RequestExecutor:
    """Runs the blocking work of one request within the limits of the process."""

    def __init__(self, limits: ConcurrencyLimits, caller: UUID, receive: Receive) -> None:
        self._limits = limits
        self._caller = caller
        self._receive = receive

    async def run_read(self, work: Callable[[], ResultT]) -> ResultT:
        """Read an uploaded file. Middleware already cancels a GET when its client disconnects."""
        return await self._limits.reads.run(self._caller, work)

    async def run_check(self, work: Callable[[], ResultT]) -> ResultT:
        """Check an upload or import. Nothing is stored if the client disconnects before the end."""
        async with cancel_on_disconnect(self._receive):
            return await self._limits.checks.run(self._caller, work)
