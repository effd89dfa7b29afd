"""Each model is loaded once, few are kept, and no caller harms another."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from app.registry.errors import ModelNotFound, NoModelPromoted
from app.resources import Resources
from app.serving import model_resolver
from app.serving.errors import ModelDamaged, ModelDisagrees, ModelTooLarge, ModelUnloadable
from app.serving.model_pool import Pool
from lora_core.errors.artifact import ArtifactCorrupt, EngineDisagrees
from tests.app.serving.conftest import Publish, open_pool
from tests.app.serving.stub import WAIT, Loader, StubEngine, StubPredictor

Work = Callable[[Pool], Awaitable[None]]


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def run(resources: Resources, loader: Loader) -> Callable[..., None]:
    """Runs a coroutine function with a pool of stubs."""

    def run(work: Work, *, most: int = 1000) -> None:
        async def main() -> None:
            pool = open_pool(resources, loader, most=most)
            try:
                async with asyncio.timeout(WAIT):
                    await work(pool)
            finally:
                pool.close()

        asyncio.run(main())

    return run


async def ask(pool: Pool, ref: str | None = None) -> str:
    resolved, _ = await pool.deployment(ref)
    return resolved.ref


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_callers_of_one_model_share_one_load(
    run: Callable[..., None], loader: Loader, publish: Publish
) -> None:
    publish()
    loader.gate.clear()

    async def work(pool: Pool) -> None:
        refs = (None, "sentiment", "sentiment:1", "sentiment@production") * 10
        asking = asyncio.gather(*(ask(pool, ref) for ref in refs))
        await until(lambda: loader.loads)
        loader.gate.set()
        assert set(await asking) == {"sentiment:1"}
        assert len(loader.loads) == 1

    run(work)


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        (ArtifactCorrupt(path="x", problem="weights have changed"), ModelDamaged),
        (ValueError("the checkpoint does not fit its config"), ModelUnloadable),
        (MemoryError(), ModelUnloadable),
    ],
)
def test_a_failed_load_reaches_all_and_is_not_remembered(
    run: Callable[..., None],
    loader: Loader,
    publish: Publish,
    cause: Exception,
    told: type[Exception],
) -> None:
    directory = publish()
    loader.broken[directory] = cause
    loader.gate.clear()

    async def work(pool: Pool) -> None:
        asking = asyncio.gather(*(ask(pool) for _ in range(5)), return_exceptions=True)
        await until(lambda: loader.loads)
        loader.gate.set()
        assert {type(failure) for failure in await asking} == {told}
        assert len(loader.loads) == 1
        loader.broken.clear()
        assert await ask(pool) == "sentiment:1"
        assert len(loader.loads) == 2

    run(work)


def test_the_model_used_least_recently_goes_first(
    run: Callable[..., None], loader: Loader, publish: Publish
) -> None:
    a, b, c = publish("a"), publish("b"), publish("c")

    async def work(pool: Pool) -> None:
        for ref in ("a", "b", "a", "c"):  # b is the oldest use when c needs room
            await ask(pool, ref)
        assert loader.loads == [a, b, c]
        await ask(pool, "a")
        assert loader.loads == [a, b, c]
        await ask(pool, "b")
        assert loader.loads == [a, b, c, b]

    run(work, most=2 * 11)


def test_a_model_that_cannot_be_loaded_pushes_none_out(
    run: Callable[..., None], loader: Loader, publish: Publish
) -> None:
    good, bad = publish("good"), publish("bad")
    loader.broken[bad] = ValueError()

    async def work(pool: Pool) -> None:
        await ask(pool, "good")
        with pytest.raises(ModelUnloadable):
            await ask(pool, "bad")
        await ask(pool, "good")
        assert loader.loads == [good, bad]

    run(work, most=11)


def test_versions_on_one_engine_count_it_once(
    run: Callable[..., None], loader: Loader, publish: Publish
) -> None:
    shared = StubEngine()
    for name in ("a", "b", "c"):
        loader.stubs[publish(name)] = StubPredictor(shared)
    own = publish("own")

    async def work(pool: Pool) -> None:
        for ref in ("a", "b", "c", "a"):
            await ask(pool, ref)
        assert len(loader.loads) == 3  # 10 + 3 · 1 bytes
        await ask(pool, "own")  # 11 more: b and c go, which frees 2
        await ask(pool, "a")
        assert loader.loads[3:] == [own]
        await ask(pool, "b")
        assert len(loader.loads) == 5

    run(work, most=22)


def test_a_model_that_never_fits_is_refused(
    run: Callable[..., None], loader: Loader, publish: Publish
) -> None:
    loader.stubs[publish("large")] = StubPredictor(StubEngine(nbytes=30))
    publish("small")

    async def work(pool: Pool) -> None:
        await ask(pool, "small")
        with pytest.raises(ModelTooLarge, match=r"31 bytes.* 22"):
            await ask(pool, "large")
        await ask(pool, "small")
        assert len(loader.loads) == 2

    run(work, most=22)


def test_the_old_version_serves_until_the_new_one_is_loaded(
    run: Callable[..., None], loader: Loader, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_resolver, "FRESH_SECONDS", 0.0)
    publish()

    async def work(pool: Pool) -> None:
        assert await ask(pool, "sentiment") == "sentiment:1"
        loader.gate.clear()
        await asyncio.to_thread(publish)
        assert await ask(pool, "sentiment") == "sentiment:1"
        await until(lambda: len(loader.loads) == 2)
        assert await ask(pool, "sentiment") == "sentiment:1"
        loader.gate.set()
        while await ask(pool, "sentiment") == "sentiment:1":
            await asyncio.sleep(0.005)
        assert await ask(pool, "sentiment") == "sentiment:2"
        assert await ask(pool, "sentiment:1") == "sentiment:1"
        assert len(loader.loads) == 2

    run(work)


def test_the_old_version_serves_on_where_the_new_one_does_not_load(
    run: Callable[..., None], loader: Loader, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_resolver, "FRESH_SECONDS", 0.0)
    publish()

    async def work(pool: Pool) -> None:
        assert await ask(pool, "sentiment") == "sentiment:1"
        directory = await asyncio.to_thread(publish)
        loader.broken[directory] = EngineDisagrees(engine="x", difference=1.0, tolerance=1e-4)
        loader.gate.clear()
        assert await ask(pool, "sentiment") == "sentiment:1"
        await until(lambda: len(loader.loads) == 2)
        monkeypatch.setattr(
            model_resolver, "FRESH_SECONDS", WAIT
        )  # from here each call takes one step
        loader.gate.set()
        told = time.monotonic() + 0.2  # a call in each step of the loop, while it fails and after
        while time.monotonic() < told:
            assert await ask(pool, "sentiment") == "sentiment:1"
            await asyncio.sleep(0)
        assert len(loader.loads) == 2  # not tried again at once
        with pytest.raises(ModelDisagrees):
            await ask(pool, "sentiment:2")

    run(work)


def test_a_caller_who_leaves_does_not_stop_the_load(
    run: Callable[..., None], loader: Loader, publish: Publish
) -> None:
    publish()
    loader.gate.clear()

    async def work(pool: Pool) -> None:
        first, second = asyncio.create_task(ask(pool)), asyncio.create_task(ask(pool))
        await until(lambda: loader.loads)
        first.cancel()
        loader.gate.set()
        assert await second == "sentiment:1"
        assert first.cancelled()
        assert len(loader.loads) == 1

    run(work)


def test_a_fresh_reference_costs_no_database_call(
    run: Callable[..., None], publish: Publish, resources: Resources
) -> None:
    publish()
    statements: list[str] = []
    event.listen(
        resources.database.read_engine,
        "before_cursor_execute",
        lambda *call: statements.append(call[2]),
    )

    async def work(pool: Pool) -> None:
        assert await ask(pool) == "sentiment:1"
        first = len(statements)
        assert first > 0
        await asyncio.gather(*(ask(pool) for _ in range(50)))
        assert len(statements) in (first, 2 * first)  # a slow machine may see it grow stale once

    run(work)


def test_a_failed_look_up_is_not_remembered(
    run: Callable[..., None], publish: Publish, resources: Resources
) -> None:
    async def work(pool: Pool) -> None:
        with pytest.raises(NoModelPromoted):
            await ask(pool)
        with pytest.raises(ModelNotFound):
            await ask(pool, "sentiment:1")
        await asyncio.to_thread(publish)
        assert await ask(pool) == "sentiment:1"
        assert await ask(pool, "sentiment:1") == "sentiment:1"

    run(work)


def test_a_manifest_that_was_exchanged_is_not_loaded(
    run: Callable[..., None], loader: Loader, publish: Publish
) -> None:
    listed: Path = publish() / "manifest.json"
    listed.write_text(listed.read_text().replace("0.8", "0.9"))

    async def work(pool: Pool) -> None:
        with pytest.raises(ModelDamaged, match=r"manifest\.json has changed"):
            await ask(pool)
        assert loader.loads == []

    run(work)


def test_a_manifest_that_is_gone_counts_as_damage(
    run: Callable[..., None], loader: Loader, publish: Publish
) -> None:
    (publish() / "manifest.json").unlink()

    async def work(pool: Pool) -> None:
        with pytest.raises(ModelDamaged, match=r"no readable manifest\.json"):
            await ask(pool)
        assert loader.loads == []

    run(work)
