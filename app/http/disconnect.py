"""The end of work whose caller has left."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import ClientLeft

SAFE = frozenset({"GET", "HEAD"})


@asynccontextmanager
async def cancelled_on_disconnect(receive: Receive) -> AsyncIterator[None]:
    """Cancels the block when the client leaves, and raises `ClientLeft` then, which nobody hears.

    Work in a thread goes on until it asks `anyio.from_thread.check_cancelled`.
    """
    with anyio.CancelScope() as scope:
        watching = asyncio.create_task(_watch(receive, scope))
        try:
            yield
        finally:
            watching.cancel()
    if scope.cancelled_caught:
        raise ClientLeft()


async def _watch(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


class CancelOnDisconnect:
    """ASGI middleware: a GET ends when its client leaves, whether it waits for a thread or runs.

    What changes something is left to its route.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in SAFE:
            await self.app(scope, receive, send)
            return
        call = _Call(receive, send)
        try:
            async with cancelled_on_disconnect(call.read_ahead):
                await self.app(scope, call.receive, call.send)
        except ClientLeft:
            if not call.started:  # else there is nothing to say, not even to the log
                raise


class _Call:
    """Hears of a disconnect before the application asks for it, and hands on all that came."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._came: asyncio.Queue[Message] = asyncio.Queue()
        self.started = self._answered = False

    async def read_ahead(self) -> Message:
        """The next message; none after the answer, which the server follows with a disconnect."""
        message = await self._receive()
        self._came.put_nowait(message)
        if message.get("more_body"):
            await self._came.join()  # holds one part of a body, no more
        if self._answered:
            await asyncio.Event().wait()
        return message

    async def receive(self) -> Message:
        message = await self._came.get()
        self._came.task_done()
        if message["type"] == "http.disconnect":
            self._came.put_nowait(message)  # whoever asks again hears the same
        return message

    async def send(self, message: Message) -> None:
        self.started = True
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._answered = True
        await self._send(message)
