"""Tests of the batcher: many requests, few cores."""

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import torch
from prometheus_client import CollectorRegistry

from app.serving.batcher import Batcher, TextLogits
from app.serving.errors import DeadlineExceeded, InferenceFailed
from app.serving.metrics import ServingMetrics
from tests.app.serving.stub import WAIT, StubEngine, StubTokens


def run(work: Callable[[Batcher], Awaitable[None]], *, workers: int = 1) -> None:
    async def main() -> None:
        batcher = Batcher(ServingMetrics(CollectorRegistry()), workers=workers)
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
) -> asyncio.Task[list[TextLogits]]:
    deadline = time.monotonic() + seconds
    texts = [StubTokens(range(length)) for length in lengths]
    return asyncio.create_task(batcher.compute(engine, adapter, texts, deadline=deadline))


async def start_blocked_batch(
    batcher: Batcher, engine: StubEngine
) -> asyncio.Task[list[TextLogits]]:
    """Start a batch that computes until the gate of its engine opens."""
    engine.gate.clear()
    first = call(batcher, engine, [1])
    await asyncio.to_thread(engine.busy.wait, WAIT)
    return first


def test_queued_texts_are_batched_up_to_the_token_limit() -> None:
    engine = StubEngine()

    async def work(batcher: Batcher) -> None:
        first = await start_blocked_batch(batcher, engine)
        calls = [call(batcher, engine, lengths) for lengths in ([40], [30, 20], [50], [10])]
        await asyncio.sleep(0)
        engine.gate.set()
        outputs = await asyncio.gather(first, *calls)
        assert [len(rows) for rows in outputs] == [1, 1, 2, 1, 1]
        assert engine.batches == [[1], [40, 30, 20, 10], [50]]

    run(work)


def test_text_over_the_token_limit_is_computed_alone() -> None:
    engine = StubEngine()

    async def work(batcher: Batcher) -> None:
        await call(batcher, engine, [500, 1])
        assert engine.batches == [[500], [1]]

    run(work)


def test_batch_has_one_engine_but_several_adapters() -> None:
    engine, other = StubEngine(), StubEngine()

    async def work(batcher: Batcher) -> None:
        first = await start_blocked_batch(batcher, engine)
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


def test_cancelled_texts_are_skipped() -> None:
    engine = StubEngine()

    async def work(batcher: Batcher) -> None:
        first = await start_blocked_batch(batcher, engine)
        leaving, staying = call(batcher, engine, [7, 7]), call(batcher, engine, [8])
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(first, staying)
        assert engine.batches == [[1], [8]]

    run(work)


def test_expired_texts_are_not_computed() -> None:
    engine = StubEngine()

    async def work(batcher: Batcher) -> None:
        first = await start_blocked_batch(batcher, engine)
        expired, staying = call(batcher, engine, [7], seconds=0), call(batcher, engine, [8])
        await asyncio.sleep(0)
        engine.gate.set()
        with pytest.raises(DeadlineExceeded):
            await expired
        await asyncio.gather(first, staying)
        assert engine.batches == [[1], [8]]

    run(work)


def test_failed_batch_fails_only_its_own_texts() -> None:
    engine = StubEngine()

    async def work(batcher: Batcher) -> None:
        first = await start_blocked_batch(batcher, engine)
        calls = [call(batcher, engine, [5]) for _ in range(3)]
        await asyncio.sleep(0)
        engine.failures = [ValueError("broken"), ValueError("broken")]
        engine.gate.set()
        errors = await asyncio.gather(first, *calls, return_exceptions=True)
        assert [type(error) for error in errors] == [InferenceFailed] * 4
        assert len(set(map(id, errors))) == 4, (
            "a shared one would collect the traces of all callers"
        )
        assert "ValueError" in str(errors[0])
        assert batcher.tokens_per_second is None
        assert len(await call(batcher, engine, [5])) == 1

    run(work)


def test_worker_outlives_an_engine_that_returns_too_few_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = StubEngine()

    async def work(batcher: Batcher) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(engine, "logits", lambda *_, **__: [])
            with pytest.raises(InferenceFailed):
                await call(batcher, engine, [5])
        assert len(await call(batcher, engine, [5])) == 1

    run(work)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("std::bad_alloc")],
)
def test_batch_is_halved_when_out_of_memory(error: Exception) -> None:
    engine = StubEngine()

    async def work(batcher: Batcher) -> None:
        first = await start_blocked_batch(batcher, engine)
        calls = [call(batcher, engine, [length]) for length in (5, 6, 7)]
        await asyncio.sleep(0)
        engine.failures = [None, error, error]
        engine.gate.set()
        await first
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert engine.batches[1:] == [[5, 6, 7], [5], [6, 7]]
        assert [type(result) for result in results] == [InferenceFailed, list, list]

    run(work)


def test_outputs_have_timings_and_throughput_is_measured() -> None:
    engine = StubEngine()

    async def work(batcher: Batcher) -> None:
        assert batcher.tokens_per_second is None
        first = await start_blocked_batch(batcher, engine)
        second = call(batcher, engine, [5])
        await asyncio.sleep(0.05)
        engine.gate.set()
        [[one], [two]] = await asyncio.gather(first, second)
        assert one.inference_seconds >= 0.04
        assert two.queue_seconds >= 0.04
        assert batcher.tokens_per_second is not None

    run(work)


def test_idle_workers_share_the_queue_and_a_single_text_gets_all_cores() -> None:
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


def test_only_the_first_worker_uses_all_cores() -> None:
    """Each thread that uses several cores has its own OpenMP pool, and the pools interfere."""
    engine, other = StubEngine(), StubEngine()

    async def work(batcher: Batcher) -> None:
        for _ in range(5):
            await call(batcher, engine, [1])
        first = await start_blocked_batch(batcher, other)
        await call(batcher, engine, [1])
        other.gate.set()
        await first
        await call(batcher, engine, [1])
        assert engine.threads == [3, 3, 3, 3, 3, 1, 3]
        assert engine.workers == [*["predict 0"] * 5, "predict 1", "predict 0"]

    run(work, workers=3)


def test_event_loop_has_an_iteration_for_each_response_of_a_batch() -> None:
    engine = StubEngine()
    iterations: list[int] = []

    async def count_iterations() -> None:
        while True:
            iterations.append(0)
            await asyncio.sleep(0)

    async def respond(batcher: Batcher, length: int) -> int:
        await call(batcher, engine, [length])
        return len(iterations)

    async def work(batcher: Batcher) -> None:
        first = await start_blocked_batch(batcher, engine)
        calls = [asyncio.create_task(respond(batcher, length)) for length in (1, 2, 3)]
        await asyncio.sleep(0.01)
        engine.gate.set()
        await first
        counting = asyncio.create_task(count_iterations())
        responses = await asyncio.gather(*calls)
        counting.cancel()
        assert engine.batches == [[1], [1, 2, 3]]
        assert responses[0] < responses[1] < responses[2]

    run(work)


def test_event_loop_goes_first() -> None:
    class Niceness(StubEngine):
        def logits(self, *arguments: Any, **options: Any) -> Any:
            self.niceness = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
            return super().logits(*arguments, **options)

    engine = Niceness()

    async def work(batcher: Batcher) -> None:
        await call(batcher, engine, [1])
        assert engine.niceness > os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    run(work)
