"""A client of the event stream that receives each message when it is sent."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI

DEADLINE = 20  # seconds, far more than needed


@dataclass(frozen=True)
class ReceivedMessage:
    event: str
    data: dict[str, Any]
    id: int | None


def parse(text: str) -> list[ReceivedMessage]:
    messages = []
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if not line.startswith(":")]
        fields = dict(line.split(": ", 1) for line in lines)
        if fields:
            number = int(fields["id"]) if "id" in fields else None
            messages.append(ReceivedMessage(fields["event"], json.loads(fields["data"]), number))
    return messages


class StreamListener:
    """Calls the application as a server does, and receives each message when it is sent."""

    def __init__(self, app: FastAPI, job_id: str, key: str | None = None) -> None:
        self.scope: dict[str, Any] = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
            "scheme": "http", "path": f"/v1/jobs/{job_id}/stream", "raw_path": b"", "root_path": "",
            "query_string": b"", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
            "headers": [(b"host", b"127.0.0.1")],
        }  # fmt: skip
        if key is not None:
            self.scope["headers"].append((b"authorization", f"Bearer {key}".encode()))
        self.app = app
        self.disconnected = asyncio.Event()
        self.ended = asyncio.Event()
        self.pings = 0
        self.received: asyncio.Queue[ReceivedMessage] = asyncio.Queue()
        self.request_sent = False

    async def run(self) -> None:
        await self.app(self.scope, self._receive, self._send)
        self.ended.set()

    async def _receive(self) -> dict[str, Any]:
        if not self.request_sent:
            self.request_sent = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.disconnected.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        text = message.get("body", b"").decode()
        self.pings += text.startswith(":")
        for received in parse(text):
            self.received.put_nowait(received)

    def drain(self) -> list[ReceivedMessage]:
        """Return the received messages that were not consumed yet."""
        return [self.received.get_nowait() for _ in range(self.received.qsize())]

    async def until(self, wanted: Callable[[ReceivedMessage], bool]) -> list[ReceivedMessage]:
        """Return all messages up to the first wanted one."""
        found: list[ReceivedMessage] = []
        while not found or not wanted(found[-1]):
            found.append(await self.received.get())
        return found


def listen(
    app: FastAPI,
    job_id: str,
    talk: Callable[[StreamListener], Awaitable[None]],
    *,
    key: str | None = None,
) -> None:
    """Open a stream, run `talk`, and wait for the stream to end by itself."""

    async def main() -> None:
        async with asyncio.timeout(DEADLINE):
            listener = StreamListener(app, job_id, key)
            running = asyncio.create_task(listener.run())
            await talk(listener)
            await running

    asyncio.run(main())
