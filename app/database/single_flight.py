"""Asking a database that may be away, from the event loop.

Who has an older answer at hand need not wait for a database that is slow, down or frozen.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

Key = TypeVar("Key")
Value = TypeVar("Value")


class Lookups(Generic[Key, Value]):
    """Looks things up in threads, once for all who ask for the same at the same time.

    All its state is touched on the event loop only.
    """

    def __init__(self, *, patience_seconds: float) -> None:
        self._patience = patience_seconds
        self._asked: dict[Key, tuple[float, asyncio.Task[Value]]] = {}

    async def ask(
        self, key: Key, look: Callable[[], Value], *, standby: Value | None = None
    ) -> Value:
        """What `look` returns or raises. Runs on when the caller leaves.

        `standby` is given instead when the database is away, or has been silent for too long.
        """
        began, task = self._asked.get(key) or self._start(key, look)
        if standby is None:
            return await asyncio.shield(task)
        left = began + self._patience - asyncio.get_running_loop().time()
        done, _ = await asyncio.wait({task}, timeout=max(0.0, left))
        if not done:
            return standby
        try:
            return task.result()
        except SQLAlchemyError:
            return standby

    def _start(self, key: Key, look: Callable[[], Value]) -> tuple[float, asyncio.Task[Value]]:
        loop = asyncio.get_running_loop()
        task = loop.create_task(run_in_threadpool(look))
        task.add_done_callback(_seen)
        task.add_done_callback(lambda _: self._asked.pop(key, None))
        self._asked[key] = (loop.time(), task)
        return self._asked[key]


def _seen(task: asyncio.Task[Any]) -> None:
    """A failure counts as seen even if every caller has left."""
    if not task.cancelled():
        task.exception()
