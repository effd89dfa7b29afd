"""A GET ends when its client leaves; one that was answered is left in peace."""

import asyncio
from typing import Any

import anyio
import pytest

from app.errors import ClientLeft
from app.http.disconnect import CancelOnDisconnect

REQUEST = {"type": "http.request", "body": b"", "more_body": False}
LEFT = {"type": "http.disconnect"}
START = {"type": "http.response.start", "status": 200, "headers": []}
LAST = {"type": "http.response.body", "body": b"x"}


async def call(app: Any, *came: dict[str, Any], method: str = "GET") -> list[dict[str, Any]]:
    """What was sent; after `came` nothing comes any more."""
    waiting = list(came)
    sent: list[dict[str, Any]] = []

    async def receive() -> Any:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    async with asyncio.timeout(10):
        await CancelOnDisconnect(app)({"type": "http", "method": method}, receive, send)
    return sent


async def for_ever(_scope: Any, _receive: Any, _send: Any) -> None:
    await asyncio.Event().wait()


def test_a_call_ends_that_reads_no_message() -> None:
    with pytest.raises(ClientLeft):
        asyncio.run(call(for_ever, REQUEST, LEFT))


def test_a_call_that_changes_something_goes_on() -> None:
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(call(for_ever, REQUEST, LEFT, method="POST"), 0.1))


def test_an_answer_under_way_ends_silently() -> None:
    async def stream(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await asyncio.Event().wait()

    assert asyncio.run(call(stream, REQUEST, LEFT)) == [START]


def test_what_follows_an_answer_is_not_cancelled() -> None:
    """A server calls the end of the answer a disconnect."""
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

        await CancelOnDisconnect(app)({"type": "http", "method": "GET"}, receive, send)

    asyncio.run(main())
    assert done == [True]


def test_a_body_comes_whole_and_a_disconnect_as_often_as_it_is_asked_for() -> None:
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
