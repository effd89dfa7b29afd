"""Cancellation of work whose client has disconnected."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import ClientDisconnected

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
