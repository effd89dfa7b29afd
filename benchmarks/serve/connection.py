"""A minimal HTTP/1.1 client over one persistent connection, cheap enough for load generation."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response. `head` is in lower case."""

    status: int
    head: bytes
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header, in lower case too."""
        _, found, rest = self.head.partition(f"\r\n{name}:".encode())
        return rest.partition(b"\r\n")[0].strip().decode("latin-1") if found else None


OnResponse = Callable[[Answer | None], None]


class Connection(asyncio.Protocol):
    """One request at a time. The response is `None` if the connection was lost or closed before.

    Uses callbacks: a task for each request would double the cost of the load.
    """

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._on_response: OnResponse | None = None
        self.open = False
        self.used_at = 0.0

    @classmethod
    async def to(cls, host: str, port: int) -> "Connection":
        """A new one. Raises `OSError`."""
        _, made = await asyncio.get_running_loop().create_connection(cls, host, port)
        return made

    def send(self, request: bytes, on_response: OnResponse) -> None:
        """Send a request; `on_response` gets the response."""
        assert self._transport is not None
        assert self._on_response is None, "one request at a time"
        self._on_response = on_response
        if self.open:
            self._transport.write(request)
        else:
            self._finish(None)

    async def ask(self, request: bytes) -> Answer | None:
        """Send a request and wait for its response."""
        answer: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self.send(request, answer.set_result)
        return await answer

    def leave(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()
        self.open = False
        self._finish(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.open = transport, True

    def connection_lost(self, _: Exception | None) -> None:
        self.open = False
        self._finish(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(_END)
        if end < 0:
            return
        head = bytes(self._buffer[: end + 2]).lower()
        answer = Answer(int(head[9:12]), head, b"")
        length = answer.header("content-length")
        assert length is not None, "an answer without its length"
        total = end + len(_END) + int(length)
        if len(self._buffer) < total:
            return
        body = bytes(self._buffer[end + len(_END) : total])
        del self._buffer[:total]
        if answer.header("connection") == "close":
            self.open = False
        self._finish(Answer(answer.status, head, body))

    def _finish(self, answer: Answer | None) -> None:
        on_response, self._on_response = self._on_response, None
        self.used_at = time.monotonic()
        if on_response is not None:
            on_response(answer)
