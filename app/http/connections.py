"""Limits of connections, below what the application sees of them.

uvicorn waits for a request head as long as a client likes, and every open connection takes a file
of the process. So a head has a time limit, and where all connections that there may be are open,
a new one takes the place of the one that has been idle longest.
"""

import asyncio
import resource
import time
from contextlib import suppress
from typing import Any, ClassVar

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.settings import Settings

HEAD_SECONDS = 10.0  # from the connection, or the first byte, to the end of a request head
FILES_SHARE = 0.75  # of the files that the process may open are for connections
LOG_SECONDS = 60  # between two lines that say that connections ran out

log = structlog.get_logger()


def raise_file_limit() -> int:
    """Let this process open as many files as its system allows; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # a system may not allow what it calls the limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def protocol(settings: Settings) -> type[H11Protocol]:
    """What speaks HTTP on each connection of one server."""
    files = raise_file_limit()
    most = settings.max_connections
    if files != resource.RLIM_INFINITY:
        most = min(most, int(files * FILES_SHARE))

    class Bounded(BoundedProtocol):
        limit = most
        idle: ClassVar[dict[BoundedProtocol, None]] = {}

    return Bounded


class BoundedProtocol(H11Protocol):
    """One connection. It is idle while it has no request under way."""

    limit: ClassVar[int]
    idle: ClassVar[dict["BoundedProtocol", None]]  # of a server; the longest idle first
    logged_at: ClassVar[float] = float("-inf")

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._application = self.app
        self.app = self._serve
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limit:
            self._make_room()
        if not transport.is_closing():
            self._look_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._busy()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look_for_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._waits():
            self.idle[self] = None  # the server's own timer of idle connections runs

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application. An answer before the end of a body that is not small closes the
        connection, as the rest is not read; so does a 400, after which nobody knows where the next
        request begins."""
        cycle = self.cycle
        length = Headers(scope=scope).get("content-length", "")
        small = length.isdigit() and int(length) <= HIGH_WATER_LIMIT

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start" and (
                message["status"] == 400 or (cycle.more_body and not small)
            ):
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._application(scope, receive, note)

    def _waits(self) -> bool:
        """Whether no request is under way, but for the rest of a body that was answered before."""
        return self.cycle is None or self.cycle.response_complete

    def _look_for_head(self) -> None:
        """Start or stop the time of a head."""
        if self.transport.is_closing() or not self._waits():
            self._busy()
        elif self._head_timer is None:
            self.idle[self] = None
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _busy(self) -> None:
        self.idle.pop(self, None)
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        if self.conn.trailing_data[0]:  # a part of a head; of a body nothing is left there
            self._refuse(b"408 Request Timeout")
        else:  # as a connection ends that was kept alive
            self.timeout_keep_alive_handler()

    def _make_room(self) -> None:
        """Close the connection that has been idle longest, or this one if none is idle."""
        if time.monotonic() - type(self).logged_at > LOG_SECONDS:
            type(self).logged_at = time.monotonic()
            log.warning("connections_full", limit=self.limit, idle=len(self.idle))
        oldest = next(iter(self.idle), None)
        if oldest is None:
            self._refuse(b"503 Service Unavailable", b"Retry-After: 5\r\n")
        else:
            oldest.timeout_keep_alive_handler()
            oldest._busy()

    def _refuse(self, status: bytes, headers: bytes = b"") -> None:
        head = b"HTTP/1.1 %s\r\n%sConnection: close\r\nContent-Length: 0\r\n\r\n"
        self.transport.write(head % (status, headers))
        self.transport.close()
