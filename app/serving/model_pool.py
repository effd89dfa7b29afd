"""The models in memory. All state is used on the event loop only."""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import structlog
from starlette.concurrency import run_in_threadpool

from app.registry.service import ResolvedModel
from app.resources import Resources
from app.serving.errors import (
    ImportedModelRejected,
    ModelCorrupt,
    ModelLoadFailed,
    ModelOutputMismatch,
    ModelTooLarge,
)
from app.serving.linear import AnyPredictor, LoadedModel
from app.serving.metrics import ServingMetrics
from app.serving.model_resolver import ModelResolver, OptionalRef
from app.storage.errors import StorageRefused, StorageUnavailable
from lora_core import manifest
from lora_core.errors.artifact import (
    ArtifactCorrupt,
    EngineMismatch,
    UnsupportedArtifact,
    UnsupportedTokenizer,
)
from lora_core.rust_panics import convert_panics

RETRY_SECONDS = 30.0  # before a new version that failed to load is tried again

T = TypeVar("T")
LoadTask = asyncio.Task[LoadedModel]

log = structlog.get_logger()


class LoadPredictor(Protocol):
    """The signature of `loader.ModelLoader`."""

    def __call__(self, directory: Path, *, imported: bool) -> AnyPredictor: ...


class ModelPool:
    """Models in memory up to a limit in bytes; evicts the least recently used.

    Requests for the same model share one load. A failed load fails all of them and is not cached.
    But a reference that has been served stays with that version while a new version of it loads,
    and if the new version does not load.
    """

    def __init__(
        self,
        *,
        resources: Resources,
        load_predictor: LoadPredictor,
        wrap: Callable[[str, AnyPredictor], LoadedModel],
        metrics: ServingMetrics,
    ) -> None:
        self._resolver = ModelResolver(resources.database)
        self._store = resources.store
        self._max_bytes = resources.settings.max_loaded_bytes
        self._load_predictor = load_predictor
        self._wrap = wrap
        self._metrics = metrics
        self._load_tasks: OrderedDict[str, LoadTask] = OrderedDict()  # by artifact key, LRU first
        self._last_served: dict[OptionalRef, ResolvedModel] = {}
        self._failed_at: dict[str, float] = {}  # by artifact key, on the monotonic clock

    async def get(self, ref: OptionalRef) -> tuple[ResolvedModel, LoadedModel]:
        """Return the model of a reference, loading it if needed; None: the only one in production.

        It stays in memory for as long as the caller refers to it. Raises `ModelNotFound`,
        `InvalidModelRef`, `NoModelPromoted`, `ModelAmbiguous`, and what `load` raises.
        """
        resolved = self._select_version(ref, await self._resolver.resolve(ref))
        model = await self.load(resolved)
        self._last_served[ref] = resolved
        return resolved, model

    async def load(self, resolved: ResolvedModel) -> LoadedModel:
        """Return this version, loading it if needed. The load continues if the caller leaves.

        Raises `ModelCorrupt`, `ModelLoadFailed`, `ImportedModelRejected`, `ModelOutputMismatch`,
        `ModelTooLarge`, `StorageUnavailable`, `StorageRefused`.
        """
        return await asyncio.shield(self._get_or_start_load(resolved))

    def close(self) -> None:
        """Release all models."""
        self._load_tasks.clear()

    def _select_version(self, ref: OptionalRef, wanted: ResolvedModel) -> ResolvedModel:
        """Return the wanted version, or the last served one unless the wanted one is loaded."""
        served, key = self._last_served.get(ref), wanted.artifact.key
        if (
            served is None
            or served.artifact.key not in self._load_tasks
            or served.artifact.key == key
        ):
            return wanted
        if time.monotonic() - self._failed_at.get(key, -math.inf) < RETRY_SECONDS:
            return served
        task = self._get_or_start_load(wanted)  # `_on_load_done` runs a moment after it is done
        return wanted if task.done() and not _has_failed(task) else served

    def _get_or_start_load(self, resolved: ResolvedModel) -> LoadTask:
        key = resolved.artifact.key
        task = self._load_tasks.get(key)
        if task is None:
            task = self._load_tasks[key] = _create_task(self._load(resolved))
            task.add_done_callback(partial(self._on_load_done, key))
        self._load_tasks.move_to_end(key)
        return task

    async def _load(self, resolved: ResolvedModel) -> LoadedModel:
        predictor = await run_in_threadpool(self._read_artifact, resolved)
        needed = predictor.engine.nbytes + predictor.adapter.nbytes
        if needed > self._max_bytes:
            raise ModelTooLarge(ref=resolved.ref, needed=needed, limit=self._max_bytes)
        return self._wrap(resolved.ref, predictor)

    def _on_load_done(self, key: str, task: LoadTask) -> None:
        if self._load_tasks.get(key) is not task:
            return
        if _has_failed(task):
            self._failed_at[key] = time.monotonic()
            del self._load_tasks[key]
            return
        self._failed_at.pop(key, None)
        self._load_tasks.move_to_end(key)
        while (loaded := self._loaded_bytes()) > self._max_bytes:  # a failed load evicts nothing
            del self._load_tasks[next(iter(self._load_tasks))]
        self._metrics.loaded_models.set(len(self._load_tasks))
        self._metrics.loaded_bytes.set(loaded)

    def _loaded_bytes(self) -> int:
        """Return the memory of all loaded models; versions with the same base share its engine."""
        predictors = [task.result().predictor for task in self._load_tasks.values() if task.done()]
        engines = {id(predictor.engine): predictor.engine for predictor in predictors}
        return sum(engine.nbytes for engine in engines.values()) + sum(
            predictor.adapter.nbytes for predictor in predictors
        )

    def _read_artifact(self, resolved: ResolvedModel) -> AnyPredictor:
        """Load a version and check that it reproduces its reference logits. Runs in a thread.

        Every byte that is read is verified; a base that is in memory already is not read again.
        """
        try:
            directory = self._store.path(resolved.artifact)
            manifest.read(directory)  # raises if it is missing
            if manifest.sha256(directory / manifest.MANIFEST) != resolved.artifact.manifest_sha256:
                raise ArtifactCorrupt(path=directory.name, problem="manifest.json has changed")
            with convert_panics():
                return self._load_predictor(directory, imported=resolved.imported)
        except ArtifactCorrupt as error:
            problem = error.detail["problem"]
            raise ModelCorrupt(ref=resolved.ref, problem=problem) from error
        except (UnsupportedArtifact, UnsupportedTokenizer) as error:
            raise ImportedModelRejected(ref=resolved.ref, problem=str(error)) from error
        except EngineMismatch as error:
            raise ModelOutputMismatch(ref=resolved.ref, problem=str(error)) from error
        except (StorageUnavailable, StorageRefused):
            raise
        except Exception as error:
            log.exception("model_unloadable", model=resolved.ref)
            raise ModelLoadFailed(ref=resolved.ref, kind=type(error).__name__) from error


def _create_task(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(_has_failed)  # retrieves the exception even if every caller has left
    return task


def _has_failed(task: asyncio.Task[Any]) -> bool:
    return task.cancelled() or task.exception() is not None
