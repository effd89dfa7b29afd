"""Model references → loaded models. All its state is touched on the event loop only."""

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

from app.registry.service import Resolved
from app.resources import Resources
from app.serving.errors import (
    ModelDamaged,
    ModelDisagrees,
    ModelRefused,
    ModelTooLarge,
    ModelUnloadable,
)
from app.serving.linear import AnyDeployment, AnyPredictor
from app.serving.metrics import ServingMeters
from app.serving.model_resolver import Meanings, Ref
from app.storage.errors import StorageRefused, StorageUnavailable
from lora_core import manifest
from lora_core.errors.artifact import (
    ArtifactCorrupt,
    ArtifactUnfit,
    EngineDisagrees,
    TokenizerUnfit,
)
from lora_core.rust_panics import contained

RETRY_SECONDS = 30.0  # until a version that did not load is tried again while another serves on

T = TypeVar("T")
Loading = asyncio.Task[AnyDeployment]

log = structlog.get_logger()


class Load(Protocol):
    """What is needed of `loader.Loader`."""

    def __call__(self, directory: Path, *, imported: bool) -> AnyPredictor: ...


class Pool:
    """Models in memory, up to so many bytes; the one used least recently goes first.

    Callers of the same model share one load. A failed load reaches them all and is not remembered,
    but a reference that has been answered is answered on by that version until its new one is
    loaded, and while its new one does not load.
    """

    def __init__(
        self,
        *,
        resources: Resources,
        load: Load,
        deploy: Callable[[str, AnyPredictor], AnyDeployment],
        meters: ServingMeters,
    ) -> None:
        self._meanings = Meanings(resources.database)
        self._store = resources.store
        self._most = resources.settings.max_loaded_bytes
        self._load = load
        self._deploy = deploy
        self._meters = meters
        self._loads: OrderedDict[str, Loading] = OrderedDict()  # by artifact, oldest use first
        self._serves: dict[Ref, Resolved] = {}  # what answered last
        self._failed_at: dict[str, float] = {}  # by artifact, on the monotonic clock

    async def deployment(self, ref: Ref) -> tuple[Resolved, AnyDeployment]:
        """The model that `ref` means, in memory for as long as it is held; None: the only one.

        Raises `ModelNotFound`, `InvalidModelRef`, `NoModelPromoted`, `ModelAmbiguous`, and what
        `ready` raises.
        """
        resolved = self._choose(ref, await self._meanings.of(ref))
        deployment = await self.ready(resolved)
        self._serves[ref] = resolved
        return resolved, deployment

    async def ready(self, resolved: Resolved) -> AnyDeployment:
        """This version, loaded.

        Raises `ModelDamaged`, `ModelUnloadable`, `ModelRefused`, `ModelDisagrees`, `ModelTooLarge`,
        `StorageUnavailable`, `StorageRefused`.
        """
        return await asyncio.shield(self._loading(resolved))

    def close(self) -> None:
        """Let go of everything."""
        self._loads.clear()

    def _choose(self, ref: Ref, wanted: Resolved) -> Resolved:
        """What is wanted; while it loads or does not load, what has served this reference."""
        serves, key = self._serves.get(ref), wanted.artifact.key
        if serves is None or serves.artifact.key not in self._loads or serves.artifact.key == key:
            return wanted
        if time.monotonic() - self._failed_at.get(key, -math.inf) < RETRY_SECONDS:
            return serves
        loading = self._loading(wanted)  # that it failed is settled a moment after it is done
        return wanted if loading.done() and not _failed(loading) else serves

    def _loading(self, resolved: Resolved) -> Loading:
        key = resolved.artifact.key
        loading = self._loads.get(key)
        if loading is None:
            loading = self._loads[key] = _start(self._open(resolved))
            loading.add_done_callback(partial(self._settle, key))
        self._loads.move_to_end(key)
        return loading

    async def _open(self, resolved: Resolved) -> AnyDeployment:
        predictor = await run_in_threadpool(self._read, resolved)
        needed = predictor.engine.nbytes + predictor.adapter.nbytes
        if needed > self._most:
            raise ModelTooLarge(ref=resolved.ref, needed=needed, limit=self._most)
        return self._deploy(resolved.ref, predictor)

    def _settle(self, key: str, loaded: Loading) -> None:
        if self._loads.get(key) is not loaded:
            return
        if _failed(loaded):
            self._failed_at[key] = time.monotonic()
            del self._loads[key]
            return
        self._failed_at.pop(key, None)
        self._loads.move_to_end(key)
        while (needed := self._bytes()) > self._most:  # only now: a broken model pushes none out
            del self._loads[next(iter(self._loads))]
        self._meters.loaded.set(len(self._loads))
        self._meters.loaded_bytes.set(needed)

    def _bytes(self) -> int:
        """Memory of all that is loaded; versions on one base share its engine."""
        loaded = [each.result().predictor for each in self._loads.values() if each.done()]
        engines = {id(predictor.engine): predictor.engine for predictor in loaded}
        return sum(each.nbytes for each in engines.values()) + sum(
            predictor.adapter.nbytes for predictor in loaded
        )

    def _read(self, resolved: Resolved) -> AnyPredictor:
        """In a thread: load it and compare with what it answered when it was made.

        Every byte that is read is checked; a base that is in memory already is not read again.
        """
        try:
            directory = self._store.path(resolved.artifact)
            manifest.read(directory)  # raises if there is none
            if manifest.sha256(directory / manifest.MANIFEST) != resolved.artifact.manifest_sha256:
                raise ArtifactCorrupt(path=directory.name, problem="manifest.json has changed")
            with contained():
                return self._load(directory, imported=resolved.imported)
        except ArtifactCorrupt as error:
            problem = error.detail["problem"]
            raise ModelDamaged(ref=resolved.ref, problem=problem) from error
        except (ArtifactUnfit, TokenizerUnfit) as error:
            raise ModelRefused(ref=resolved.ref, problem=str(error)) from error
        except EngineDisagrees as error:
            raise ModelDisagrees(ref=resolved.ref, problem=str(error)) from error
        except (StorageUnavailable, StorageRefused):
            raise
        except Exception as error:
            log.exception("model_unloadable", model=resolved.ref)
            raise ModelUnloadable(ref=resolved.ref, kind=type(error).__name__) from error


def _start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(_failed)  # its failure counts as seen, even if every caller has left
    return task


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.cancelled() or task.exception() is not None
