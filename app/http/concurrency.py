"""Blocking work that requests run in threads or child processes: its limits, and its cancellation.

Reads of dataset rows, imports and checks of base models have limits of their own, so that they
cannot delay uploads. When the client disconnects, its work is cancelled: queued work never starts,
and `app.sandbox.runner.run_lora_core_sandboxed` kills the child process.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import (
    ClientDisconnected,
    ConcurrencyLimitReached,
    KeyConcurrencyLimitReached,
    TooManyRequests,
)
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


@contextmanager
def _cancel_threads_with_task() -> Iterator[None]:
    """If the task is cancelled, as by a server that stops, let its threads notice.

    `anyio.from_thread.check_cancelled` looks at cancel scopes only.
    """
    with anyio.CancelScope() as scope:
        try:
            yield
        except asyncio.CancelledError:
            scope.cancel()
            raise


async def _cancel_when_disconnected(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


class CancellationMiddleware:
    """ASGI middleware that cancels a GET or HEAD request when its client disconnects.

    It cancels requests that wait for a thread, too. Other methods are left to their routes. The
    threads of any request notice if a stopping server cancels it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with _cancel_threads_with_task():
            if scope["type"] == "http" and scope["method"] in SAFE_METHODS:
                await self._run_while_connected(scope, receive, send)
            else:
                await self.app(scope, receive, send)

    async def _run_while_connected(self, scope: Scope, receive: Receive, send: Send) -> None:
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
MAX_BASE_CHECKS = 8  # running or waiting; one runs, for minutes if its model is large
MAX_BASE_CHECKS_PER_KEY = 2
RETRY_AFTER_SECONDS = 5

_ResultT = TypeVar("_ResultT")


@dataclass
class KeyedLimit:
    """A limit on what is in progress, in total and per API key. Use it on one event loop only."""

    total: int
    per_key: int
    error: type[TooManyRequests]
    error_for_key: type[TooManyRequests]
    retry_after: int  # seconds
    _in_progress: Counter[UUID] = field(default_factory=Counter, init=False)  # by API key

    @contextmanager
    def reserve(self, caller: UUID) -> Iterator[None]:
        """Count one more during the block. Raises `error_for_key` or `error` at a limit."""
        if self._in_progress[caller] >= self.per_key:
            raise self.error_for_key(limit=self.per_key, retry_after=self.retry_after)
        if self._in_progress.total() >= self.total:
            raise self.error(limit=self.total, retry_after=self.retry_after)
        self._in_progress[caller] += 1
        try:
            yield
        finally:
            self._in_progress[caller] -= 1
            if not self._in_progress[caller]:
                del self._in_progress[caller]


class ConcurrencyLimiter:
    """Limits how much work runs at once, and how much may run or wait, in total and per API key.

    Use an instance on one event loop only.
    """

    def __init__(
        self, *, max_pending: int, max_pending_per_key: int, max_running: int = MAX_RUNNING
    ) -> None:
        self._limiter = anyio.CapacityLimiter(max_running)
        self._pending = KeyedLimit(
            total=max_pending,
            per_key=max_pending_per_key,
            error=ConcurrencyLimitReached,
            error_for_key=KeyConcurrencyLimitReached,
            retry_after=RETRY_AFTER_SECONDS,
        )

    async def run(self, caller: UUID, work: Callable[[], _ResultT]) -> _ResultT:
        """Run `work` in a thread and return its result.

        Raises `KeyConcurrencyLimitReached`, `ConcurrencyLimitReached`, and whatever `work` raises.
        """
        with self._pending.reserve(caller):
            return await anyio.to_thread.run_sync(work, limiter=self._limiter)


class ConcurrencyLimiters:
    """The concurrency limiters of a process. Create it on the event loop."""

    def __init__(self, settings: Settings) -> None:
        self.reads = ConcurrencyLimiter(
            max_pending=settings.max_reads, max_pending_per_key=settings.max_reads_per_key
        )
        self.checks = ConcurrencyLimiter(
            max_pending=settings.max_checks, max_pending_per_key=settings.max_checks
        )
        self.imports = ConcurrencyLimiter(
            max_pending=settings.max_checks, max_pending_per_key=settings.max_checks, max_running=1
        )
        self.base_checks = ConcurrencyLimiter(
            max_pending=MAX_BASE_CHECKS, max_pending_per_key=MAX_BASE_CHECKS_PER_KEY, max_running=1
        )


class RequestExecutor:
    """Runs the blocking work of one request within the limits of the process."""

    def __init__(self, limits: ConcurrencyLimiters, caller: UUID, receive: Receive) -> None:
        self._limits = limits
        self._caller = caller
        self._receive = receive

    async def run_dataset_read(self, work: Callable[[], _ResultT]) -> _ResultT:
        """Read an uploaded file. Middleware already cancels a GET when its client disconnects."""
        return await self._limits.reads.run(self._caller, work)

    async def run(self, work: Callable[[], _ResultT]) -> _ResultT:
        """Do the work in a thread. If the client disconnects, it is cancelled."""
        async with cancel_on_disconnect(self._receive):
            return await self._limits.checks.run(self._caller, work)

    async def run_model_import(self, work: Callable[[], _ResultT]) -> _ResultT:
        """Check and store an imported model, which may take minutes. Otherwise like `run`."""
        async with cancel_on_disconnect(self._receive):
            return await self._limits.imports.run(self._caller, work)

    async def run_base_check(self, work: Callable[[], _ResultT]) -> _ResultT:
        """Check a base model. If the client disconnects, the check is cancelled."""
        async with cancel_on_disconnect(self._receive):
            return await self._limits.base_checks.run(self._caller, work)
