"""A GET is cancelled when its client disconnects, but not after the response."""

import asyncio
from typing import Any

import anyio
import pytest

from app.errors import ClientDisconnected
from app.http.concurrency import CancellationMiddleware

REQUEST = {"type": "http.request", "body": b"", "more_body": False}
LEFT = {"type": "http.disconnect"}
START = {"type": "http.response.start", "status": 200, "headers": []}
LAST = {"type": "http.response.body", "body": b"x"}


async def call(app: Any, *came: dict[str, Any], method: str = "GET") -> list[dict[str, Any]]:
    """Return the sent messages. After the messages in `came`, `receive` blocks."""
    waiting = list(came)
    sent: list[dict[str, Any]] = []

    async def receive() -> Any:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    async with asyncio.timeout(10):
        await CancellationMiddleware(app)({"type": "http", "method": method}, receive, send)
    return sent


async def for_ever(_scope: Any, _receive: Any, _send: Any) -> None:
    await asyncio.Event().wait()


def test_request_that_reads_no_message_is_cancelled() -> None:
    with pytest.raises(ClientDisconnected):
        asyncio.run(call(for_ever, REQUEST, LEFT))


def test_post_is_not_cancelled() -> None:
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(call(for_ever, REQUEST, LEFT, method="POST"), 0.1))


def test_started_response_is_cancelled_silently() -> None:
    async def stream(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await asyncio.Event().wait()

    assert asyncio.run(call(stream, REQUEST, LEFT)) == [START]


def test_work_after_the_response_is_not_cancelled() -> None:
    """A server reports a disconnect after the end of the response."""
    done = []

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        assert await receive() == REQUEST
        await send(START)
        await send(LAST)
        await asyncio.sleep(0.05)
        done.append(True)

    async def main() -> None:
        over = asyncio.Event()

        async def receive() -> Any:
            if not over.is_set():
                over.set()
                return REQUEST
            while not sent[1:]:
                await asyncio.sleep(0)
            return LEFT

        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await CancellationMiddleware(app)({"type": "http", "method": "GET"}, receive, send)

    asyncio.run(main())
    assert done == [True]


def test_body_is_complete_and_disconnect_is_repeated() -> None:
    parts = [{**REQUEST, "body": bytes([i]), "more_body": i < 9} for i in range(10)]
    got: list[Any] = []

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        got.extend([await receive() for _ in parts])
        await send(START)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.Event().wait()
        with anyio.CancelScope(shield=True):
            got.extend([await receive(), await receive()])

    assert asyncio.run(call(app, *parts, LEFT)) == [START]
    assert got == [*parts, LEFT, LEFT]
