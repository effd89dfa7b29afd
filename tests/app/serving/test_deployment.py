"""One model, one thread."""

import asyncio
import math
from collections.abc import Awaitable, Callable

import pytest

from app.serving.deployment import Deployment
from app.serving.errors import NotFinite
from tests.app.serving.stub import WAIT, StubPredictor


def run(stub: StubPredictor, work: Callable[[Deployment], Awaitable[None]]) -> None:
    async def main() -> None:
        deployment = Deployment("sentiment:1", stub)
        try:
            async with asyncio.timeout(WAIT):
                await work(deployment)
        finally:
            deployment.close()

    asyncio.run(main())


def test_calls_do_not_overlap() -> None:
    stub = StubPredictor()  # fails when two calls are inside

    async def work(deployment: Deployment) -> None:
        asked = [f"text {i}" for i in range(20)]
        calls = (deployment.classify([text], truncate=True) for text in asked)
        answers = await asyncio.gather(*calls)
        assert stub.asked == asked
        assert [answer.tokens for answer in answers] == [len(text) for text in asked]

    run(stub, work)


def test_a_caller_who_leaves_in_the_queue_is_skipped() -> None:
    stub = StubPredictor()
    stub.gate.clear()

    async def work(deployment: Deployment) -> None:
        calls = [
            asyncio.create_task(deployment.classify([text], truncate=True))
            for text in ("first", "second", "third")
        ]
        await asyncio.to_thread(stub.busy.wait, WAIT)
        calls[1].cancel()
        await asyncio.sleep(0)
        stub.gate.set()
        await calls[0]
        await calls[2]
        assert stub.asked == ["first", "third"]

    run(stub, work)


def test_closing_lets_waiting_calls_be_answered() -> None:
    stub = StubPredictor()
    stub.gate.clear()

    async def work(deployment: Deployment) -> None:
        calls = [
            asyncio.create_task(deployment.classify(["text"], truncate=True)) for _ in range(3)
        ]
        await asyncio.to_thread(stub.busy.wait, WAIT)
        deployment.close()
        stub.gate.set()
        assert len(await asyncio.gather(*calls)) == 3

    run(stub, work)


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_an_error(score: float) -> None:
    async def work(deployment: Deployment) -> None:
        with pytest.raises(NotFinite, match="sentiment:1"):
            await deployment.classify(["text"], truncate=True)

    run(StubPredictor(score), work)
