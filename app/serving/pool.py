"""Model references → loaded models. All its state is touched on the event loop only."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog
from starlette.concurrency import run_in_threadpool

from app.artifacts.errors import StorageRefused, StorageUnavailable
from app.artifacts.store import Store
from app.db.engines import Database
from app.registry.service import Resolved
from app.serving.deployment import Deployment, Predictor
from app.serving.errors import ModelDamaged, ModelUnloadable
from app.serving.meanings import Meanings
from lora_core import manifest
from lora_core.errors import ArtifactCorrupt
from lora_core.process import wait_passively

T = TypeVar("T")

log = structlog.get_logger()


class Pool:
    """At most so many models in memory; the one used least recently goes first.

    Callers of the same model share one load. A failed load reaches them all and is not remembered.
    """

    def __init__(
        self,
        *,
        database: Database,
        store: Store,
        most: int,
        load: Callable[[Path], Predictor] | None = None,
    ) -> None:
        self._meanings = Meanings(database)
        self._store = store
        self._most = most
        self._load = load or _load_predictor
        self._slots: OrderedDict[str, _Slot] = OrderedDict()  # by artifact, oldest use first

    @asynccontextmanager
    async def deployment(self, ref: str | None) -> AsyncIterator[tuple[Resolved, Deployment]]:
        """The model that `ref` means, kept in memory until the block ends; None: the only one.

        Raises `ModelNotFound`, `InvalidModelRef`, `NoModelPromoted`, `ModelAmbiguous`,
        `ModelDamaged`, `ModelUnloadable`.
        """
        resolved = await self._meanings.of(ref)
        slot = self._slot(resolved)
        slot.users += 1
        try:
            yield resolved, await asyncio.shield(slot.loading)
        finally:
            slot.release()

    def close(self) -> None:
        """Let go of everything."""
        for slot in self._slots.values():
            slot.retire()
        self._slots.clear()

    def _slot(self, resolved: Resolved) -> "_Slot":
        key = resolved.artifact.key
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = _Slot(_start(self._open(resolved)))
            slot.loading.add_done_callback(partial(self._settle, key, slot))
        self._slots.move_to_end(key)
        return slot

    async def _open(self, resolved: Resolved) -> Deployment:
        return Deployment(resolved.ref, await run_in_threadpool(self._read, resolved))

    def _settle(self, key: str, slot: "_Slot", loaded: asyncio.Task[Deployment]) -> None:
        if self._slots.get(key) is not slot:
            return
        if _failed(loaded):
            del self._slots[key]
            return
        self._slots.move_to_end(key)
        while len(self._slots) > self._most:  # only now: a broken model pushes no good one out
            _, oldest = self._slots.popitem(last=False)
            oldest.retire()

    def _read(self, resolved: Resolved) -> Predictor:
        """In a thread: check every byte, load.

        Raises `ModelDamaged`, `ModelUnloadable`, `StorageUnavailable`, `StorageRefused`.
        """
        try:
            directory = self._store.path(resolved.artifact)
            manifest.read(directory)  # raises if there is none
            if manifest.sha256(directory / manifest.MANIFEST) != resolved.artifact.manifest_sha256:
                raise ArtifactCorrupt(path=directory.name, problem="manifest.json has changed")
            return self._load(directory)
        except ArtifactCorrupt as error:
            problem = error.detail["problem"]
            raise ModelDamaged(ref=resolved.ref, problem=problem) from error
        except (StorageUnavailable, StorageRefused):
            raise
        except Exception as error:
            log.exception("model_unloadable", model=resolved.ref)
            raise ModelUnloadable(ref=resolved.ref, kind=type(error).__name__) from error


class _Slot:
    """A model that is loading or loaded, and how many calls hold it."""

    def __init__(self, loading: asyncio.Task[Deployment]) -> None:
        self.loading = loading
        self.users = 0
        self.retired = False

    def release(self) -> None:
        """One call less."""
        self.users -= 1
        self._close_if_idle()

    def retire(self) -> None:
        """No new calls come; close with the last one."""
        self.retired = True
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self.retired and not self.users:
            self.loading.add_done_callback(_close)


def _close(loaded: asyncio.Task[Deployment]) -> None:
    if not _failed(loaded):
        loaded.result().close()


def _start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(_failed)  # its failure counts as seen, even if every caller has left
    return task


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.cancelled() or task.exception() is not None


def _load_predictor(directory: Path) -> Predictor:
    wait_passively()
    from lora_core.inference.predictor import Predictor as Loaded  # loads torch

    return Loaded.load(directory)
