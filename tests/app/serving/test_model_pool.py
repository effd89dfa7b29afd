"""Tests of the model pool: shared loads, eviction and isolation of failures."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from app.database.errors import DatabaseUnavailable
from app.registry.errors import ModelNotFound, NoModelPromoted
from app.registry.refs import ModelRef
from app.registry.repository import get_version
from app.registry.service import delete_alias
from app.resources import Resources
from app.serving import model_pool
from app.serving.errors import (
    ModelArtifactCorrupt,
    ModelGoldenPredictionsMismatch,
    ModelLoadFailed,
    ModelLoading,
    ModelTooLarge,
)
from app.serving.model_pool import ModelPool
from lora_core.errors.artifact import ArtifactCorrupt, EngineOutputMismatch, InvalidImportedModel
from tests.app.serving.conftest import Publish, open_pool
from tests.app.serving.stub import WAIT, StubEngine, StubLoader, StubPredictor

Work = Callable[[ModelPool], Awaitable[None]]


@pytest.fixture
def loader() -> StubLoader:
    return StubLoader()


@pytest.fixture
def run(resources: Resources, loader: StubLoader) -> Callable[..., None]:
    """Runs a coroutine function with a pool of stubs."""

    def run(work: Work, *, max_bytes: int = 1000) -> None:
        async def main() -> None:
            pool = open_pool(resources, loader, max_bytes=max_bytes)
            try:
                async with asyncio.timeout(WAIT):
                    await work(pool)
            finally:
                pool.close()

        asyncio.run(main())

    return run


async def get_ref(pool: ModelPool, ref: str | None = None) -> str:
    resolved, _ = await pool.get(ref)
    return resolved.ref


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_concurrent_requests_share_one_load(
    run: Callable[..., None], loader: StubLoader, publish: Publish
) -> None:
    publish()
    loader.gate.clear()

    async def work(pool: ModelPool) -> None:
        refs = (None, "sentiment", "sentiment:1", "sentiment@production") * 10
        requests = asyncio.gather(*(get_ref(pool, ref) for ref in refs))
        await until(lambda: loader.loads)
        loader.gate.set()
        assert set(await requests) == {"sentiment:1"}
        assert len(loader.loads) == 1

    run(work)


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (ArtifactCorrupt(path="x", problem="weights have changed"), ModelArtifactCorrupt),
        (ValueError("the checkpoint does not fit its config"), ModelLoadFailed),
        (MemoryError(), ModelLoadFailed),
        (InvalidImportedModel(problem="too many terms"), ModelLoadFailed),  # not imported
    ],
)
def test_failed_load_fails_all_waiting_requests_and_is_not_cached(
    run: Callable[..., None],
    loader: StubLoader,
    publish: Publish,
    cause: Exception,
    expected: type[Exception],
) -> None:
    directory = publish()
    loader.broken[directory] = cause
    loader.gate.clear()

    async def work(pool: ModelPool) -> None:
        requests = asyncio.gather(*(get_ref(pool) for _ in range(5)), return_exceptions=True)
        await until(lambda: loader.loads)
        loader.gate.set()
        assert {type(failure) for failure in await requests} == {expected}
        assert len(loader.loads) == 1
        loader.broken.clear()
        assert await get_ref(pool) == "sentiment:1"
        assert len(loader.loads) == 2

    run(work)


def test_least_recently_used_model_is_evicted(
    run: Callable[..., None], loader: StubLoader, publish: Publish
) -> None:
    a, b, c = publish("a"), publish("b"), publish("c")

    async def work(pool: ModelPool) -> None:
        for ref in ("a", "b", "a", "c"):  # b is the least recently used when c is loaded
            await get_ref(pool, ref)
        assert loader.loads == [a, b, c]
        await get_ref(pool, "a")
        assert loader.loads == [a, b, c]
        await get_ref(pool, "b")
        assert loader.loads == [a, b, c, b]

    run(work, max_bytes=2 * 11)


@pytest.mark.parametrize(("age", "fits"), [(model_pool.SPARE_AGE_SECONDS, False), (-1.0, True)])
def test_spare_model_evicts_only_models_that_are_not_in_use(
    run: Callable[..., None],
    loader: StubLoader,
    publish: Publish,
    monkeypatch: pytest.MonkeyPatch,
    age: float,
    fits: bool,
) -> None:
    monkeypatch.setattr(model_pool, "SPARE_AGE_SECONDS", age)
    used, spare = publish("used"), publish("spare")

    async def work(pool: ModelPool) -> None:
        await get_ref(pool, "used")
        loaded = await pool.load_spare(await pool._resolver.resolve("spare"))
        assert (loaded is not None) == fits
        await get_ref(pool, "spare" if fits else "used")
        assert loader.loads == [used, spare]

    run(work, max_bytes=11)


@pytest.mark.parametrize("joins", ["while it loads", "once it is loaded"])
def test_spare_model_is_like_others_once_it_is_requested(
    run: Callable[..., None], loader: StubLoader, publish: Publish, joins: str
) -> None:
    used, spare, other = publish("used"), publish("spare"), publish("other")

    async def work(pool: ModelPool) -> None:
        await get_ref(pool, "used")
        resolved = await pool._resolver.resolve("spare")
        loading = asyncio.create_task(pool.load_spare(resolved))
        if joins == "once it is loaded":
            await loading
        await get_ref(pool, "spare")
        assert await loading is not None
        assert await pool.load_spare(resolved) is not None  # and stays like others
        await get_ref(pool, "other")
        await get_ref(pool, "spare")
        assert loader.loads == [used, spare, other]

    run(work, max_bytes=2 * 11)


def test_failed_load_evicts_nothing(
    run: Callable[..., None], loader: StubLoader, publish: Publish
) -> None:
    good, bad = publish("good"), publish("bad")
    loader.broken[bad] = ValueError()

    async def work(pool: ModelPool) -> None:
        await get_ref(pool, "good")
        with pytest.raises(ModelLoadFailed):
            await get_ref(pool, "bad")
        await get_ref(pool, "good")
        assert loader.loads == [good, bad]

    run(work, max_bytes=11)


def test_load_in_progress_is_neither_evicted_nor_counted(
    run: Callable[..., None], loader: StubLoader, publish: Publish
) -> None:
    loading, first, second = publish("loading"), publish("first"), publish("second")
    loader.gates[loading] = threading.Event()

    async def work(pool: ModelPool) -> None:
        request = asyncio.create_task(get_ref(pool, "loading"))
        await until(lambda: loader.loads)
        await get_ref(pool, "first")
        await get_ref(pool, "second")  # evicts the first, although the load is older
        assert loaded_models(pool) == 1
        loader.gates[loading].set()
        await request
        await get_ref(pool, "loading")
        assert loader.loads == [loading, first, second]

    run(work, max_bytes=11)


def test_failed_load_whose_callback_is_pending_does_not_matter(
    run: Callable[..., None], publish: Publish
) -> None:
    publish()

    async def work(pool: ModelPool) -> None:
        failed = asyncio.get_running_loop().create_future()
        failed.set_exception(ModelLoadFailed(ref="other:1", kind="ValueError"))
        pool._load_tasks["other"] = failed  # type: ignore[assignment]
        await get_ref(pool)
        await asyncio.sleep(0)
        assert loaded_models(pool) == 1

    run(work)


def loaded_models(pool: ModelPool) -> float:
    [metric] = pool._metrics.loaded_models.collect()
    return metric.samples[0].value


def test_few_models_load_at_a_time(
    run: Callable[..., None], loader: StubLoader, publish: Publish
) -> None:
    names = [f"model-{i}" for i in range(model_pool.MAX_LOADS + 2)]
    for name in names:
        publish(name)
    loader.gate.clear()

    async def work(pool: ModelPool) -> None:
        requests = asyncio.gather(*(get_ref(pool, name) for name in names))
        await until(lambda: len(loader.loads) == model_pool.MAX_LOADS)
        await asyncio.sleep(0.1)
        assert len(loader.loads) == model_pool.MAX_LOADS
        loader.gate.set()
        assert await requests == [f"{name}:1" for name in names]

    run(work)


def test_names_of_a_version_do_not_fill_memory(
    run: Callable[..., None],
    publish: Publish,
    resources: Resources,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_pool, "MAX_CACHED_REFS", 3)
    publish()
    with resources.database.read() as session:
        job_id = get_version(session, ModelRef("sentiment", number=1)).job_id
        assert job_id is not None

    async def work(pool: ModelPool) -> None:
        for i in range(5):
            assert await get_ref(pool, f"ft:{i}:{job_id.hex}") == "sentiment:1"
        assert list(pool._last_served) == [f"ft:{i}:{job_id.hex}" for i in (2, 3, 4)]

    run(work)


def test_shared_engine_is_counted_once(
    run: Callable[..., None], loader: StubLoader, publish: Publish
) -> None:
    shared = StubEngine()
    for name in ("a", "b", "c"):
        loader.stubs[publish(name)] = StubPredictor(shared)
    own = publish("own")

    async def work(pool: ModelPool) -> None:
        for ref in ("a", "b", "c", "a"):
            await get_ref(pool, ref)
        assert len(loader.loads) == 3  # 10 + 3 · 1 bytes
        await get_ref(pool, "own")  # 11 more: b and c are evicted, which frees 2
        await get_ref(pool, "a")
        assert loader.loads[3:] == [own]
        await get_ref(pool, "b")
        assert len(loader.loads) == 5

    run(work, max_bytes=22)


def test_model_over_the_memory_limit_is_rejected(
    run: Callable[..., None], loader: StubLoader, publish: Publish
) -> None:
    loader.stubs[publish("large")] = StubPredictor(StubEngine(nbytes=30))
    publish("small")

    async def work(pool: ModelPool) -> None:
        await get_ref(pool, "small")
        with pytest.raises(ModelTooLarge, match=r"31 bytes.* 22"):
            await get_ref(pool, "large")
        await get_ref(pool, "small")
        assert len(loader.loads) == 2

    run(work, max_bytes=22)


def test_old_version_serves_until_the_new_one_is_loaded(
    run: Callable[..., None], loader: StubLoader, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_pool, "CACHE_TTL_SECONDS", 0.0)
    publish()

    async def work(pool: ModelPool) -> None:
        assert await get_ref(pool, "sentiment") == "sentiment:1"
        loader.gate.clear()
        await asyncio.to_thread(publish)
        assert await get_ref(pool, "sentiment") == "sentiment:1"
        await until(lambda: len(loader.loads) == 2)
        assert await get_ref(pool, "sentiment") == "sentiment:1"
        loader.gate.set()
        while await get_ref(pool, "sentiment") == "sentiment:1":
            await asyncio.sleep(0.005)
        assert await get_ref(pool, "sentiment") == "sentiment:2"
        assert await get_ref(pool, "sentiment:1") == "sentiment:1"
        assert len(loader.loads) == 2

    run(work)


def test_another_model_in_production_is_not_replaced_by_the_old_one(
    run: Callable[..., None],
    loader: StubLoader,
    publish: Publish,
    resources: Resources,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_pool, "CACHE_TTL_SECONDS", 0.0)
    publish("old")

    async def work(pool: ModelPool) -> None:
        assert await get_ref(pool) == "old:1"
        with resources.database.write() as session:
            delete_alias(session, name="old", alias="production")
        directory = await asyncio.to_thread(publish, "new")
        loader.broken[directory] = ValueError("the checkpoint does not fit its config")
        with pytest.raises(ModelLoadFailed, match="new:1"):
            await get_ref(pool)
        loader.broken.clear()
        assert await get_ref(pool) == "new:1"

    run(work)


def test_old_version_keeps_serving_if_the_new_one_fails_to_load(
    run: Callable[..., None], loader: StubLoader, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_pool, "CACHE_TTL_SECONDS", 0.0)
    publish()

    async def work(pool: ModelPool) -> None:
        assert await get_ref(pool, "sentiment") == "sentiment:1"
        directory = await asyncio.to_thread(publish)
        loader.broken[directory] = EngineOutputMismatch(engine="x", difference=1.0, tolerance=1e-4)
        loader.gate.clear()
        assert await get_ref(pool, "sentiment") == "sentiment:1"
        await until(lambda: len(loader.loads) == 2)
        monkeypatch.setattr(
            model_pool, "CACHE_TTL_SECONDS", WAIT
        )  # from here on each call takes one step of the event loop
        loader.gate.set()
        end = (
            time.monotonic() + 0.2
        )  # a call in each step of the loop, during and after the failure
        while time.monotonic() < end:
            assert await get_ref(pool, "sentiment") == "sentiment:1"
            await asyncio.sleep(0)
        assert len(loader.loads) == 2  # not retried at once
        with pytest.raises(ModelGoldenPredictionsMismatch):
            await get_ref(pool, "sentiment:2")

    run(work)


def test_evicted_version_serves_again_if_the_new_one_fails_to_load(
    run: Callable[..., None], loader: StubLoader, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_pool, "CACHE_TTL_SECONDS", 0.0)
    old, other = publish(), publish("other")

    async def work(pool: ModelPool) -> None:
        assert await get_ref(pool, "sentiment") == "sentiment:1"
        await get_ref(pool, "other")  # evicts it
        new = await asyncio.to_thread(publish)
        loader.broken[new] = ValueError("the checkpoint does not fit its config")
        for _ in range(2):
            requests = asyncio.gather(*(get_ref(pool, "sentiment") for _ in range(3)))
            assert set(await requests) == {"sentiment:1"}
        assert loader.loads == [old, other, new, old]

    run(work, max_bytes=11)


def test_error_names_the_new_version_if_the_old_one_cannot_serve_either(
    run: Callable[..., None], loader: StubLoader, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_pool, "CACHE_TTL_SECONDS", 0.0)
    old = publish()
    publish("other")

    async def work(pool: ModelPool) -> None:
        await get_ref(pool, "sentiment")
        await get_ref(pool, "other")
        new = await asyncio.to_thread(publish)
        loader.broken = {each: ValueError("damaged") for each in (old, new)}
        for _ in range(2):
            with pytest.raises(ModelLoadFailed, match="sentiment:2"):
                await get_ref(pool, "sentiment")
        del loader.broken[new]
        assert await get_ref(pool, "sentiment") == "sentiment:2"

    run(work, max_bytes=11)


def test_failures_are_not_kept_forever(
    run: Callable[..., None], loader: StubLoader, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_pool, "FAILED_LOAD_RETRY_SECONDS", 0.0)
    for name in ("a", "b"):
        loader.broken[publish(name)] = ValueError()

    async def work(pool: ModelPool) -> None:
        for name in ("a", "b"):
            with pytest.raises(ModelLoadFailed):
                await get_ref(pool, name)
        assert len(pool._failed_at) == 1

    run(work)


def test_cancelled_request_does_not_cancel_the_load(
    run: Callable[..., None], loader: StubLoader, publish: Publish
) -> None:
    publish()
    loader.gate.clear()

    async def work(pool: ModelPool) -> None:
        first, second = asyncio.create_task(get_ref(pool)), asyncio.create_task(get_ref(pool))
        await until(lambda: loader.loads)
        first.cancel()
        loader.gate.set()
        assert await second == "sentiment:1"
        assert first.cancelled()
        assert len(loader.loads) == 1

    run(work)


def test_fresh_reference_needs_no_query(
    run: Callable[..., None], publish: Publish, resources: Resources
) -> None:
    publish()
    statements: list[str] = []
    event.listen(
        resources.database.read_engine,
        "before_cursor_execute",
        lambda *call: statements.append(call[2]),
    )

    async def work(pool: ModelPool) -> None:
        assert await get_ref(pool) == "sentiment:1"
        first = len(statements)
        assert first > 0
        await asyncio.gather(*(get_ref(pool) for _ in range(50)))
        assert len(statements) in (first, 2 * first)  # a slow machine may see it grow stale once

    run(work)


def test_database_that_is_slow_at_the_deadline_is_unavailable(
    run: Callable[..., None], loader: StubLoader, publish: Publish, resources: Resources
) -> None:
    publish()
    responds = threading.Event()
    event.listen(
        resources.database.read_engine, "before_cursor_execute", lambda *_: responds.wait(WAIT)
    )

    async def work(pool: ModelPool) -> None:
        with pytest.raises(DatabaseUnavailable):
            await pool.get("sentiment", deadline=time.monotonic() + 0.1)
        responds.set()
        loader.gate.clear()
        with pytest.raises(ModelLoading):
            await pool.get("sentiment", deadline=time.monotonic() + 2)
        loader.gate.set()

    run(work)


def test_cached_version_is_used_at_a_short_deadline(
    run: Callable[..., None],
    publish: Publish,
    resources: Resources,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish()
    responds = threading.Event()
    monkeypatch.setattr(model_pool, "CACHE_TTL_SECONDS", 0.0)

    async def work(pool: ModelPool) -> None:
        await pool.get("sentiment")
        event.listen(
            resources.database.read_engine, "before_cursor_execute", lambda *_: responds.wait(WAIT)
        )
        resolved, _ = await pool.get("sentiment", deadline=time.monotonic() + 0.5)
        assert resolved.ref == "sentiment:1"
        responds.set()

    run(work)


def test_failed_query_is_not_cached(
    run: Callable[..., None], publish: Publish, resources: Resources
) -> None:
    async def work(pool: ModelPool) -> None:
        with pytest.raises(NoModelPromoted):
            await get_ref(pool)
        with pytest.raises(ModelNotFound):
            await get_ref(pool, "sentiment:1")
        await asyncio.to_thread(publish)
        assert await get_ref(pool) == "sentiment:1"
        assert await get_ref(pool, "sentiment:1") == "sentiment:1"

    run(work)


def test_replaced_manifest_is_not_loaded(
    run: Callable[..., None], loader: StubLoader, publish: Publish
) -> None:
    manifest: Path = publish() / "manifest.json"
    manifest.write_text(manifest.read_text().replace("0.8", "0.9"))

    async def work(pool: ModelPool) -> None:
        with pytest.raises(ModelArtifactCorrupt, match=r"manifest\.json has changed"):
            await get_ref(pool)
        assert loader.loads == []

    run(work)


def test_missing_manifest_is_corrupt(
    run: Callable[..., None], loader: StubLoader, publish: Publish
) -> None:
    (publish() / "manifest.json").unlink()

    async def work(pool: ModelPool) -> None:
        with pytest.raises(ModelArtifactCorrupt, match=r"no readable manifest\.json"):
            await get_ref(pool)
        assert loader.loads == []

    run(work)
