"""From the reference of a model to the model in memory. Used on the event loop only."""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import anyio
import structlog

from app.database.engines import Database
from app.database.errors import DatabaseUnavailable
from app.database.single_flight import SingleFlight
from app.errors import AppError
from app.registry import service as registry
from app.registry.service import ResolvedModel
from app.resources import Resources
from app.serving.batcher import Batcher
from app.serving.errors import (
    ImportedModelRejected,
    ModelArtifactCorrupt,
    ModelGoldenPredictionsMismatch,
    ModelLoadFailed,
    ModelLoading,
    ModelTooLarge,
)
from app.serving.loaded_model import (
    EngineSelectingEncoderLoader,
    LoadedEncoderModel,
    LoadedLinearModel,
    LoadedModel,
    load_and_check_linear_model,
)
from app.serving.metrics import ServingMetrics
from app.storage.errors import StorageRefused, StorageUnavailable
from lora_core import manifest
from lora_core.errors.artifact import (
    ArtifactCorrupt,
    EngineOutputMismatch,
    InvalidImportedModel,
    UnsupportedTokenizer,
)
from lora_core.model_imports.metadata import validate_model_metadata
from lora_core.rust_panics import convert_panics

CACHE_TTL_SECONDS = 0.5  # a cached version is used without a query: promotions take effect soon
STALE_IF_ERROR_SECONDS = 600.0  # a cached version is used while the database is unavailable
DATABASE_TIMEOUT_SECONDS = 1.0
_MAX_RESOLUTION_SHARE = 0.5  # of the time to the deadline; the rest is for the prediction
MAX_CACHED_REFS = 1024  # "ft:…" names have a part that may be anything
# At a time. Each takes a thread, of which all requests share a few dozen, and memory beyond the
# limit of the pool until it is done. `EngineCache` builds one encoder after the other; meanwhile
# another load may fetch its files or check its predictions.
MAX_LOADS = 2
FAILED_LOAD_RETRY_SECONDS = 30.0  # before a new version that failed to load is tried again
SPARE_AGE_SECONDS = 600.0  # a model that no request waits for is evicted before any used since

_LoadTask = asyncio.Task[LoadedModel]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _CachedVersion:
    resolved: ResolvedModel
    read_at: float


class ModelResolver:
    """Resolves model references. Use on the event loop only."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._cache: dict[str | None, _CachedVersion] = {}
        self._queries: SingleFlight[str | None, _CachedVersion] = SingleFlight(
            timeout_seconds=DATABASE_TIMEOUT_SECONDS
        )

    async def resolve(
        self, ref: str | None, *, max_wait_seconds: float = math.inf
    ) -> ResolvedModel:
        """Return the version that `ref` names, or named last if the database is unavailable.

        None stands for the only model in production. `max_wait_seconds` is for a known version.
        Raises `ModelNotFound`, `InvalidModelRef`, `NoModelPromoted`, `SeveralModelsInProduction`.
        """
        cached = self._cache.get(ref)
        age = self._clock() - cached.read_at if cached else 0.0
        if cached and age < CACHE_TTL_SECONDS:
            return cached.resolved
        fallback = cached if age < STALE_IF_ERROR_SECONDS else None
        try:
            version = await self._queries.run(
                ref,
                lambda: self._query(ref),
                fallback=fallback,
                max_wait_seconds=max_wait_seconds,
            )
        except AppError:
            self._cache.pop(ref, None)
            raise
        if version is not fallback:
            if len(self._cache) >= MAX_CACHED_REFS:
                self._cache.clear()
            self._cache[ref] = version
        return version.resolved

    def _query(self, ref: str | None) -> _CachedVersion:
        read_at = self._clock()
        with self._database.read() as session:
            return _CachedVersion(registry.resolve_or_default(session, ref), read_at)


class ModelPool:
    """Models in memory up to a limit in bytes; evicts the least recently used.

    Requests for the same model share one load. A failed load fails all of them and is not cached.
    But a reference that has been served stays with that version while a new version of it loads,
    and if the new version does not load. If that version has been evicted, requests wait for the
    new one, and the old one is loaded again only if the new one does not load.

    Spare models, which no request waits for, take only the room of models that have not been used
    for a while: otherwise one that does not fit beside the others would evict them again and again.
    """

    def __init__(
        self,
        *,
        resources: Resources,
        load_encoder: EngineSelectingEncoderLoader,
        batcher: Batcher,
        executor: Executor,
        metrics: ServingMetrics,
    ) -> None:
        self._resolver = ModelResolver(resources.database)
        self._store = resources.store
        self._max_bytes = resources.settings.max_loaded_bytes
        self._load_encoder = load_encoder
        self._batcher = batcher
        self._executor = executor
        self._metrics = metrics
        self._load_tasks: dict[str, _LoadTask] = {}  # by artifact key
        # When each was used last, on the monotonic clock; infinite while a request waits for it.
        self._used_at: dict[str, float] = {}
        self._load_limiter = anyio.CapacityLimiter(MAX_LOADS)
        self._last_served: OrderedDict[str | None, ResolvedModel] = OrderedDict()  # LRU first
        self._failed_at: dict[str, float] = {}  # by artifact key, on the monotonic clock

    async def get(
        self, ref: str | None, *, deadline: float = math.inf
    ) -> tuple[ResolvedModel, LoadedModel]:
        """Return the model of a reference, loading it if needed; None: the only one in production.

        It stays in memory for as long as the caller refers to it. `deadline` is on the monotonic
        clock; a load continues after it. Raises `ModelNotFound`, `InvalidModelRef`,
        `NoModelPromoted`, `SeveralModelsInProduction`, what `load` raises, and at the deadline
        `ModelLoading`, or `DatabaseUnavailable` if the version is not even known.
        """
        seconds = deadline - time.monotonic()
        wanted = None
        try:
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                wanted = await self._resolver.resolve(
                    ref, max_wait_seconds=seconds * _MAX_RESOLUTION_SHARE
                )
                resolved, model = await self._load_or_fall_back(ref, wanted)
        except TimeoutError:
            raise (ModelLoading() if wanted else DatabaseUnavailable()) from None
        self._last_served[ref] = resolved
        self._last_served.move_to_end(ref)
        if len(self._last_served) > MAX_CACHED_REFS:
            self._last_served.popitem(last=False)
        return resolved, model

    async def load(self, resolved: ResolvedModel) -> LoadedModel:
        """Return this version, loading it if needed. The load continues if the caller leaves.

        Raises `ModelArtifactCorrupt`, `ModelLoadFailed`, `ImportedModelRejected`,
        `ModelGoldenPredictionsMismatch`, `ModelTooLarge`, `StorageUnavailable`, `StorageRefused`.
        """
        model = await asyncio.shield(self._get_or_start_load(resolved))
        return model.with_ref(resolved.ref)  # several versions may have one artifact

    async def load_spare(self, resolved: ResolvedModel) -> LoadedModel | None:
        """Return this version as `load` does; None if models in use leave no room for it."""
        model = await asyncio.shield(self._get_or_start_load(resolved, spare=True))
        return model.with_ref(resolved.ref) if resolved.artifact.key in self._load_tasks else None

    def close(self) -> None:
        """Release all models."""
        self._load_tasks.clear()
        self._used_at.clear()

    async def _load_or_fall_back(
        self, ref: str | None, wanted: ResolvedModel
    ) -> tuple[ResolvedModel, LoadedModel]:
        selected = self._select_version(ref, wanted)
        try:
            return selected, await self.load(selected)
        except AppError:
            fallback = self._select_version(ref, wanted)
            with suppress(AppError):
                if fallback is not selected:
                    return fallback, await self.load(fallback)
            raise

    def _select_version(self, ref: str | None, wanted: ResolvedModel) -> ResolvedModel:
        """Return the wanted version, or while it is not loaded the last served one of the model.

        Without a name, the only model in production may be another one than before.
        """
        served = self._last_served.get(ref)
        if (
            served is None
            or served.name != wanted.name
            or served.artifact.key == wanted.artifact.key
            or self._has_failed_lately(served)
        ):
            return wanted
        if self._has_failed_lately(wanted):
            return served
        if served.artifact.key not in self._load_tasks:
            return wanted
        # The task may be done before its `_on_load_done` callback runs.
        return wanted if _is_loaded(self._get_or_start_load(wanted)) else served

    def _has_failed_lately(self, resolved: ResolvedModel) -> bool:
        failed_at = self._failed_at.get(resolved.artifact.key, -math.inf)
        return time.monotonic() - failed_at < FAILED_LOAD_RETRY_SECONDS

    def _get_or_start_load(self, resolved: ResolvedModel, *, spare: bool = False) -> _LoadTask:
        key = resolved.artifact.key
        task = self._load_tasks.get(key)
        if task is None:
            task = self._load_tasks[key] = asyncio.create_task(self._load(resolved))
            task.add_done_callback(partial(self._on_load_done, key))
        used_at = time.monotonic() if spare or task.done() else math.inf
        if spare:
            used_at = max(used_at - SPARE_AGE_SECONDS, self._used_at.get(key, -math.inf))
        self._used_at[key] = used_at
        return task

    async def _load(self, resolved: ResolvedModel) -> LoadedModel:
        model = await anyio.to_thread.run_sync(
            self._load_from_store, resolved, limiter=self._load_limiter
        )
        needed = model.predictor.engine.nbytes + model.predictor.adapter.nbytes
        if needed > self._max_bytes:
            raise ModelTooLarge(ref=resolved.ref, needed=needed, limit=self._max_bytes)
        return model

    def _on_load_done(self, key: str, task: _LoadTask) -> None:
        succeeded = _is_loaded(task)  # retrieves the exception even if every caller has left
        if self._load_tasks.get(key) is not task:
            return
        now = time.monotonic()
        if not succeeded:
            self._failed_at = {
                each: failed_at
                for each, failed_at in self._failed_at.items()
                if now - failed_at < FAILED_LOAD_RETRY_SECONDS
            } | {key: now}
            del self._load_tasks[key], self._used_at[key]
            return
        self._failed_at.pop(key, None)
        self._used_at[key] = min(now, self._used_at[key])
        loaded = {key: task.result() for key, task in self._load_tasks.items() if _is_loaded(task)}
        while (used := _total_bytes(loaded.values())) > self._max_bytes:  # loads continue
            oldest = min(loaded, key=self._used_at.__getitem__)
            del loaded[oldest], self._load_tasks[oldest], self._used_at[oldest]
        self._metrics.loaded_models.set(len(loaded))
        self._metrics.loaded_bytes.set(used)

    def _load_from_store(self, resolved: ResolvedModel) -> LoadedModel:
        """Load a version and check that it reproduces its golden predictions. Runs in a thread.

        Every byte that is read is verified; a base that is in memory already is not read again. An
        imported version has to pass the import checks again, because it may have been imported
        before they existed.
        """
        ref = resolved.ref
        try:
            ref_of_base = resolved.artifact.base
            directory = self._store.local_directory(resolved.artifact)
            base = self._store.local_directory(ref_of_base) if ref_of_base is not None else None
            digest = resolved.artifact.manifest_sha256
            files = manifest.read(directory, digest=digest)["files"]
            with convert_panics():
                if resolved.imported:
                    validate_model_metadata(directory, base)
                if manifest.is_linear(files):
                    return LoadedLinearModel(
                        ref, load_and_check_linear_model(directory), self._executor
                    )
                predictor = self._load_encoder(directory, base=base, imported=resolved.imported)
                return LoadedEncoderModel(ref, predictor, self._batcher, self._executor)
        except ArtifactCorrupt as error:
            problem = error.detail["problem"]
            raise ModelArtifactCorrupt(ref=ref, problem=problem) from error
        except EngineOutputMismatch as error:
            raise ModelGoldenPredictionsMismatch(ref=ref, problem=str(error)) from error
        except (StorageUnavailable, StorageRefused):
            raise
        except Exception as error:
            if resolved.imported and isinstance(
                error, (InvalidImportedModel, UnsupportedTokenizer)
            ):
                raise ImportedModelRejected(ref=ref, problem=str(error)) from error
            log.exception("model_unloadable", model=ref)
            raise ModelLoadFailed(ref=ref, kind=type(error).__name__) from error


def _is_loaded(task: _LoadTask) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _total_bytes(models: Iterable[LoadedModel]) -> int:
    """Return the memory of these models; versions with the same base share its engine."""
    predictors = [model.predictor for model in models]
    engines = {id(predictor.engine): predictor.engine for predictor in predictors}
    return sum(engine.nbytes for engine in engines.values()) + sum(
        predictor.adapter.nbytes for predictor in predictors
    )
