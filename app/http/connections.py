"""Connection limits, enforced in uvicorn's protocol class, below the ASGI application.

uvicorn waits without a time limit for a request head, and for a client to read its response, which
stays in memory. Every open connection uses a file descriptor. So both have a timeout here, and when
the connection limit is reached, a new connection replaces the one that has been idle the longest,
if possible one whose response is written.
"""

import asyncio
import resource
import socket
import time
from contextlib import suppress
from typing import Any, ClassVar

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.settings import Settings

HEAD_TIMEOUT_SECONDS = 10.0  # from the connection, or the first byte, to the end of a request head
READ_TIMEOUT_SECONDS = 30.0  # a client that reads nothing of its response for so long is cut off
MAX_SHARE_OF_OPEN_FILES = 0.75  # the share of the open-file limit that connections may use
UNSENT_BYTES = 128 * 1024  # of a response that the kernel holds
LOG_INTERVAL_SECONDS = 60  # minimum time between two warnings about the connection limit

log = structlog.get_logger()


def raise_open_file_limit() -> int:
    """Raise this process's open-file limit to the hard limit, and return the new limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems do not allow their own hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def build_protocol_class(settings: Settings) -> type[H11Protocol]:
    """Return the HTTP protocol class for one server, with its connection limit."""
    file_limit = raise_open_file_limit()
    limit = settings.max_connections
    if file_limit != resource.RLIM_INFINITY:
        limit = min(limit, int(file_limit * MAX_SHARE_OF_OPEN_FILES))

    class ServerProtocol(LimitedH11Protocol):
        max_connections = limit
        idle_connections: ClassVar[dict[LimitedH11Protocol, None]] = {}
        starting = asyncio.Lock()

    return ServerProtocol


class LimitedH11Protocol(H11Protocol):
    """One connection. It is idle while no request is in progress."""

    max_connections: ClassVar[int]
    idle_connections: ClassVar[dict["LimitedH11Protocol", None]]  # per server; longest idle first
    starting: ClassVar[asyncio.Lock]  # per server; held by the request that starts next
    logged_at: ClassVar[float] = float("-inf")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._application = self.app
        self.app = self._run_application
        self._head_timer: asyncio.TimerHandle | None = None
        self._read_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _limit_unsent_bytes(transport)
        if len(self.connections) > self.max_connections:
            self._evict_idle_connection()
        if not transport.is_closing():
            self._update_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._mark_busy()
        self._stop_read_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._update_head_timer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_idle():
            self.idle_connections[self] = None  # uvicorn's keep-alive timer is running
        self._start_read_timer_if_closing()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._start_read_timer_if_closing()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_read_timer()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_read_timer()
        self._start_read_timer_if_closing()  # some of the response is left

    async def _run_application(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, and close the connection after certain responses.

        One is a response before the end of a large body, as the rest is not read. The other is a
        400, after which it is unclear where the next request begins.
        """
        cycle = self.cycle
        length = Headers(scope=scope).get("content-length", "")
        small = length.isdigit() and int(length) <= HIGH_WATER_LIMIT

        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start" and (
                message["status"] == 400 or (cycle.more_body and not small)
            ):
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        # Each starts in its own iteration of the event loop. Those that arrived together would
        # hold up everything else for a millisecond each.
        async with self.starting:
            await asyncio.sleep(0)
        await self._application(scope, receive, send_and_close)

    def _is_idle(self) -> bool:
        """Return whether no request is in progress.

        The rest of a body does not count once the response is complete.
        """
        return self.cycle is None or self.cycle.response_complete

    def _update_head_timer(self) -> None:
        """Start or stop the timer for the next request head."""
        self._start_read_timer_if_closing()
        if self.transport.is_closing() or not self._is_idle():
            self._mark_busy()
        elif self._head_timer is None:
            self.idle_connections[self] = None
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_SECONDS, self._on_head_timeout)

    def _mark_busy(self) -> None:
        self.idle_connections.pop(self, None)
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _start_read_timer_if_closing(self) -> None:
        if self.transport.is_closing():  # it closes only once everything is written
            self._start_read_timer()

    def _start_read_timer(self) -> None:
        """Start the timer for what is left to write. Nothing must be added to it meanwhile."""
        left = self.transport.get_write_buffer_size()
        if left and self._read_timer is None:
            self._read_timer = self.loop.call_later(
                READ_TIMEOUT_SECONDS, self._on_read_timeout, left
            )

    def _stop_read_timer(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _on_read_timeout(self, left_before: int) -> None:
        self._read_timer = None
        if self.transport.get_write_buffer_size() < left_before:
            self._start_read_timer()
        else:
            self.transport.abort()

    def _on_head_timeout(self) -> None:
        if self.conn.trailing_data[0]:  # part of a head: h11 leaves no body data there
            self._reject(b"408 Request Timeout")
        else:  # close it like a keep-alive connection that timed out
            self.timeout_keep_alive_handler()

    def _evict_idle_connection(self) -> None:
        """Close the connection that has been idle longest, or this one if none is idle."""
        if time.monotonic() - type(self).logged_at > LOG_INTERVAL_SECONDS:
            type(self).logged_at = time.monotonic()
            count = len(self.idle_connections)
            log.warning("connection_limit_reached", limit=self.max_connections, idle=count)
        idle = iter(self.idle_connections)  # the longest first
        done = (each for each in idle if not each.transport.get_write_buffer_size())
        evicted = next(done, None) or next(iter(self.idle_connections), None)
        if evicted is None:
            self._reject(b"503 Service Unavailable", b"Retry-After: 5\r\n")
        else:
            evicted.transport.abort()  # `close` would wait until its client has read everything
            evicted._mark_busy()

    def _reject(self, status: bytes, headers: bytes = b"") -> None:
        head = b"HTTP/1.1 %s\r\n%sConnection: close\r\nContent-Length: 0\r\n\r\n"
        self.transport.write(head % (status, headers))
        self.transport.close()


def _limit_unsent_bytes(transport: asyncio.Transport) -> None:
    """Let the kernel hold little of a response, so that its buffer shrinks while a client reads.

    Otherwise it takes megabytes at once, and a slow client would seem to read nothing for minutes.
    """
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
