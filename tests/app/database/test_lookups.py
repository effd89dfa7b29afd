"""Who has an older answer need not wait for a database that is away."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from app.database.single_flight import Lookups

DOWN = OperationalError("SELECT 1", {}, Exception("no connection"))
WAIT = 20


class Source:
    """Something to ask, which counts and can be made slow."""

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


def test_those_who_ask_at_the_same_time_share_one_look(source: Source) -> None:
    async def work() -> None:
        lookups: Lookups[str, str] = Lookups(patience_seconds=WAIT)
        answers = await asyncio.gather(*(lookups.ask("a", source) for _ in range(10)))
        assert set(answers) == {"answer 1"}
        assert await lookups.ask("a", source) == "answer 2"

    run(work())


def test_a_standby_is_not_used_while_the_database_answers(source: Source) -> None:
    async def work() -> None:
        lookups: Lookups[str, str] = Lookups(patience_seconds=WAIT)
        assert await lookups.ask("a", source, standby="old") == "answer 1"

    run(work())


def test_a_standby_is_used_while_the_database_is_down(source: Source) -> None:
    async def work() -> None:
        lookups: Lookups[str, str] = Lookups(patience_seconds=WAIT)
        source.failure = DOWN
        assert await lookups.ask("a", source, standby="old") == "old"
        with pytest.raises(OperationalError):
            await lookups.ask("a", source)
        source.failure = ValueError("not about the database")
        with pytest.raises(ValueError, match="not about"):
            await lookups.ask("a", source, standby="old")

    run(work())


def test_a_silent_database_is_waited_for_once(source: Source) -> None:
    async def work() -> None:
        lookups: Lookups[str, str] = Lookups(patience_seconds=0.3)
        loop = asyncio.get_running_loop()
        source.gate.clear()
        began = loop.time()
        assert await lookups.ask("a", source, standby="old") == "old"
        first = loop.time()
        assert first - began >= 0.3
        for _ in range(20):  # none of them waits again
            assert await lookups.ask("a", source, standby="old") == "old"
        assert loop.time() - first < 0.3
        assert source.asked == 1
        without = asyncio.create_task(lookups.ask("a", source))
        await asyncio.sleep(0)
        source.gate.set()
        assert await without == "answer 1"

    run(work())


def test_who_leaves_does_not_stop_the_look(source: Source) -> None:
    async def work() -> None:
        lookups: Lookups[str, str] = Lookups(patience_seconds=WAIT)
        source.gate.clear()
        first, second = (asyncio.create_task(lookups.ask("a", source)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        source.gate.set()
        assert await second == "answer 1"

    run(work())
