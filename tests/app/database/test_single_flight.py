"""Callers with a fallback do not wait for an unavailable database."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from app.database.single_flight import SingleFlight

DOWN = OperationalError("SELECT 1", {}, Exception("no connection"))
WAIT = 20


class Source:
    """A lookup that counts its calls and can be slow."""

    def __init__(self) -> None:
        self.asked = 0
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None

    def __call__(self) -> str:
        self.asked += 1
        assert self.gate.wait(WAIT)
        if self.failure:
            raise self.failure
        return f"answer {self.asked}"


@pytest.fixture
def source() -> Source:
    return Source()


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, WAIT))


def test_concurrent_calls_share_one_run(source: Source) -> None:
    async def work() -> None:
        lookups: SingleFlight[str, str] = SingleFlight(timeout_seconds=WAIT)
        responses = await asyncio.gather(*(lookups.run("a", source) for _ in range(10)))
        assert set(responses) == {"answer 1"}
        assert await lookups.run("a", source) == "answer 2"

    run(work())


def test_fallback_is_not_used_while_the_database_responds(source: Source) -> None:
    async def work() -> None:
        lookups: SingleFlight[str, str] = SingleFlight(timeout_seconds=WAIT)
        assert await lookups.run("a", source, fallback="old") == "answer 1"

    run(work())


def test_fallback_is_used_while_the_database_is_down(source: Source) -> None:
    async def work() -> None:
        lookups: SingleFlight[str, str] = SingleFlight(timeout_seconds=WAIT)
        source.failure = DOWN
        assert await lookups.run("a", source, fallback="old") == "old"
        with pytest.raises(OperationalError):
            await lookups.run("a", source)
        source.failure = ValueError("not about the database")
        with pytest.raises(ValueError, match="not about"):
            await lookups.run("a", source, fallback="old")

    run(work())


def test_timeout_counts_from_the_first_call(source: Source) -> None:
    async def work() -> None:
        lookups: SingleFlight[str, str] = SingleFlight(timeout_seconds=0.3)
        loop = asyncio.get_running_loop()
        source.gate.clear()
        began = loop.time()
        assert await lookups.run("a", source, fallback="old") == "old"
        first = loop.time()
        assert first - began >= 0.3
        for _ in range(20):  # none of them waits for another timeout
            assert await lookups.run("a", source, fallback="old") == "old"
        assert loop.time() - first < 0.3
        assert source.asked == 1
        without = asyncio.create_task(lookups.run("a", source))
        await asyncio.sleep(0)
        source.gate.set()
        assert await without == "answer 1"

    run(work())


def test_cancelled_caller_does_not_stop_the_run(source: Source) -> None:
    async def work() -> None:
        lookups: SingleFlight[str, str] = SingleFlight(timeout_seconds=WAIT)
        source.gate.clear()
        first, second = (asyncio.create_task(lookups.run("a", source)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        source.gate.set()
        assert await second == "answer 1"

    run(work())
