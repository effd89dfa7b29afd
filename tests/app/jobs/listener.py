"""A reader of the live stream that hears each message when it is sent."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI

DEADLINE = 20  # seconds, far above what is needed


@dataclass(frozen=True)
class Message:
    event: str
    data: dict[str, Any]
    id: int | None


def parse(text: str) -> list[Message]:
    messages = []
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if not line.startswith(":")]
        fields = dict(line.split(": ", 1) for line in lines)
        if fields:
            number = int(fields["id"]) if "id" in fields else None
            messages.append(Message(fields["event"], json.loads(fields["data"]), number))
    return messages


class Listener:
    """Calls the application as a server does, and hears each message when it is sent."""

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
        self.gone = asyncio.Event()
        self.over = asyncio.Event()
        self.pings = 0
        self.heard: asyncio.Queue[Message] = asyncio.Queue()
        self.asked = False

    async def run(self) -> None:
        await self.app(self.scope, self._receive, self._send)
        self.over.set()

    async def _receive(self) -> dict[str, Any]:
        if not self.asked:
            self.asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        text = message.get("body", b"").decode()
        self.pings += text.startswith(":")
        for heard in parse(text):
            self.heard.put_nowait(heard)

    def left(self) -> list[Message]:
        """What was heard and not yet asked for."""
        return [self.heard.get_nowait() for _ in range(self.heard.qsize())]

    async def until(self, wanted: Callable[[Message], bool]) -> list[Message]:
        """All messages up to the first that is wanted."""
        found: list[Message] = []
        while not found or not wanted(found[-1]):
            found.append(await self.heard.get())
        return found


def listen(
    app: FastAPI,
    job_id: str,
    talk: Callable[[Listener], Awaitable[None]],
    *,
    key: str | None = None,
) -> None:
    """Open a stream, talk, and see it end by itself."""

    async def main() -> None:
        async with asyncio.timeout(DEADLINE):
            listener = Listener(app, job_id, key)
            running = asyncio.create_task(listener.run())
            await talk(listener)
            await running

    asyncio.run(main())
