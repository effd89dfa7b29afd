"""Shared lookups in a database that may be unavailable, for code on the event loop.

A caller with an older result need not wait for a database that is slow, down or frozen.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class SingleFlight(Generic[_Key, _Value]):
    """Runs functions in threads, and only once for concurrent calls with the same key.

    Named after Go's singleflight. Use an instance on the event loop only.
    """

    def __init__(self, *, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._in_flight: dict[_Key, tuple[float, asyncio.Task[_Value]]] = {}

    async def run(
        self,
        key: _Key,
        function: Callable[[], _Value],
        *,
        fallback: _Value | None = None,
        max_wait_seconds: float = math.inf,
    ) -> _Value:
        """Return or raise what `function` does. It continues if the caller is cancelled.

        With a `fallback`, return that if the database is unavailable, or takes longer than the
        timeout or than this caller waits.
        """
        started_at, task = self._in_flight.get(key) or self._start(key, function)
        if fallback is None:
            return await asyncio.shield(task)
        seconds_left = started_at + self._timeout_seconds - asyncio.get_running_loop().time()
        timeout = max(0.0, min(seconds_left, max_wait_seconds))
        done, _ = await asyncio.wait({task}, timeout=timeout)
        if not done:
            return fallback
        try:
            return task.result()
        except SQLAlchemyError:
            return fallback

    def _start(
        self, key: _Key, function: Callable[[], _Value]
    ) -> tuple[float, asyncio.Task[_Value]]:
        loop = asyncio.get_running_loop()
        task = loop.create_task(run_in_threadpool(function))
        task.add_done_callback(_retrieve_exception)
        task.add_done_callback(lambda _: self._in_flight.pop(key, None))
        self._in_flight[key] = (loop.time(), task)
        return self._in_flight[key]


def _retrieve_exception(task: asyncio.Task[Any]) -> None:
    """Mark the exception as retrieved, so that asyncio does not warn if all callers are gone."""
    if not task.cancelled():
        task.exception()
