"""Texts of many callers, few cores."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from app.serving.batcher import Batcher, Computed, Ticket
from app.serving.errors import BatchFailed, DeadlinePassed
from app.serving.metrics import ServingMeters
from tests.app.serving.stub import WAIT, StubEngine


def run(work: Callable[[Batcher], Awaitable[None]], *, workers: int = 1) -> None:
    async def main() -> None:
        batcher = Batcher(ServingMeters(CollectorRegistry()), workers=workers)
        try:
            async with asyncio.timeout(WAIT):
                await work(batcher)
        finally:
            batcher.close()

    asyncio.run(main())


def call(
    batcher: Batcher,
    engine: StubEngine,
    lengths: Sequence[int],
    *,
    adapter: Any = None,
    seconds: float = WAIT,
) -> asyncio.Task[list[Computed]]:
    loop = asyncio.get_running_loop()
    deadline = time.monotonic() + seconds
    tickets = [
        Ticket(engine, adapter, range(length), deadline, loop.create_future()) for length in lengths
    ]
    return asyncio.create_task(batcher.compute(tickets))


async def held(batcher: Batcher, engine: StubEngine) -> asyncio.Task[list[Computed]]:
    """A first call that computes until the gate of its engine opens."""
    engine.gate.clear()
    first = call(batcher, engine, [1])
    await asyncio.to_thread(engine.busy.wait, WAIT)
    return first


def test_what_waits_is_computed_together_up_to_the_budget() -> None:
    engine = StubEngine()

    async def work(batcher: Batcher) -> None:
        first = await held(batcher, engine)
        calls = [call(batcher, engine, lengths) for lengths in ([40], [30, 20], [50], [10])]
        await asyncio.sleep(0)
        engine.gate.set()
        answers = await asyncio.gather(first, *calls)
        assert [len(rows) for rows in answers] == [1, 1, 2, 1, 1]
        assert engine.batches == [[1], [40, 30, 20, 10], [50]]

    run(work)


def test_a_text_over_the_budget_is_computed_alone() -> None:
    engine = StubEngine()

    async def work(batcher: Batcher) -> None:
        await call(batcher, engine, [500, 1])
        assert engine.batches == [[500], [1]]

    run(work)


def test_one_batch_may_hold_many_adapters_but_one_engine() -> None:
    engine, other = StubEngine(), StubEngine()

    async def work(batcher: Batcher) -> None:
        first = await held(batcher, engine)
        calls = [
            call(batcher, engine, [5], adapter="a"),
            call(batcher, other, [5], adapter="b"),
            call(batcher, engine, [5], adapter="c"),
        ]
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(first, *calls)
        assert engine.adapters == [[None], ["a", "c"]]
        assert other.adapters == [["b"]]

    run(work)


def test_a_caller_who_leaves_is_skipped() -> None:
    engine = StubEngine()

    async def work(batcher: Batcher) -> None:
        first = await held(batcher, engine)
        leaving, staying = call(batcher, engine, [7, 7]), call(batcher, engine, [8])
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(first, staying)
        assert engine.batches == [[1], [8]]

    run(work)


def test_what_is_too_late_is_not_computed() -> None:
    engine = StubEngine()

    async def work(batcher: Batcher) -> None:
        first = await held(batcher, engine)
        late, staying = call(batcher, engine, [7], seconds=0), call(batcher, engine, [8])
        await asyncio.sleep(0)
        engine.gate.set()
        with pytest.raises(DeadlinePassed):
            await late
        await asyncio.gather(first, staying)
        assert engine.batches == [[1], [8]]

    run(work)


def test_a_failed_batch_answers_every_caller_and_the_next_goes_on() -> None:
    engine = StubEngine()

    async def work(batcher: Batcher) -> None:
        first = await held(batcher, engine)
        calls = [call(batcher, engine, [5]) for _ in range(3)]
        await asyncio.sleep(0)
        engine.fails = [ValueError("broken"), ValueError("broken")]
        engine.gate.set()
        failures = await asyncio.gather(first, *calls, return_exceptions=True)
        assert [type(failure) for failure in failures] == [BatchFailed] * 4
        assert "ValueError" in str(failures[0])
        assert len(await call(batcher, engine, [5])) == 1

    run(work)


def test_without_memory_a_batch_is_computed_by_halves() -> None:
    engine = StubEngine()

    async def work(batcher: Batcher) -> None:
        first = await held(batcher, engine)
        calls = [call(batcher, engine, [length]) for length in (5, 6, 7)]
        await asyncio.sleep(0)
        engine.fails = [None, MemoryError(), MemoryError()]
        engine.gate.set()
        await first
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert engine.batches[1:] == [[5, 6, 7], [5], [6, 7]]
        assert [type(each) for each in found] == [BatchFailed, list, list]

    run(work)


def test_answers_tell_what_they_took_and_the_speed_is_known() -> None:
    engine = StubEngine()

    async def work(batcher: Batcher) -> None:
        assert batcher.tokens_per_second is None
        first = await held(batcher, engine)
        second = call(batcher, engine, [5])
        await asyncio.sleep(0.05)
        engine.gate.set()
        [[one], [two]] = await asyncio.gather(first, second)
        assert one.computing >= 0.04
        assert two.queued >= 0.04
        assert batcher.tokens_per_second is not None

    run(work)


def test_idle_workers_share_what_waits_and_one_alone_has_all_cores() -> None:
    engine = StubEngine()

    async def work(batcher: Batcher) -> None:
        await call(batcher, engine, [9])
        assert engine.threads == [2]
        engine.gate.clear()
        together = call(batcher, engine, [10, 20, 30, 40])
        while len(engine.batches) < 3:
            await asyncio.sleep(0.005)
        assert sorted(engine.batches[1:]) == [[10, 20], [30, 40]]
        assert engine.threads[1] == 1
        engine.gate.set()
        assert len(await together) == 4

    run(work, workers=2)


def test_all_cores_are_always_used_by_the_same_thread() -> None:
    """Each thread that uses them keeps a team of its own, and teams are in each other's way."""
    engine, other = StubEngine(), StubEngine()

    async def work(batcher: Batcher) -> None:
        for _ in range(5):
            await call(batcher, engine, [1])
        first = await held(batcher, other)
        await call(batcher, engine, [1])
        other.gate.set()
        await first
        await call(batcher, engine, [1])
        assert engine.threads == [3, 3, 3, 3, 3, 1, 3]
        assert engine.workers == [*["predict 0"] * 5, "predict 1", "predict 0"]

    run(work, workers=3)
