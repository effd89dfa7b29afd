"""Shadow evaluation: a candidate predicts live texts, and is only compared with production."""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import structlog
from starlette.concurrency import run_in_threadpool

from app.database.engines import Database
from app.registry import repository
from app.registry import service as registry
from app.registry.service import ResolvedModel
from app.registry.tables import PRODUCTION, SHADOW
from app.serving.batcher import TextLogits
from app.serving.client_formats import PredictRequest
from app.serving.loaded_model import LoadedModel
from app.serving.metrics import ServingMetrics
from app.serving.model_pool import ModelPool

if TYPE_CHECKING:
    from lora_core.inference.decoding import DecodedOutput
    from lora_core.specs.task import TaskType


CANDIDATES_TTL_SECONDS = 1.0  # before the candidates are queried again
MAX_SHADOW_TEXTS_IN_FLIGHT = 64
SHADOW_TIMEOUT_SECONDS = 30.0
RETRY_SECONDS = 300.0  # before a shadow that did not load or cannot be compared is tried again
MAX_PAIRS = 1000  # of versions whose statistics are in memory

_ShadowOutcome = Literal["agreed", "differed", "skipped", "failed"]

log = structlog.get_logger()


@dataclass(slots=True)
class ShadowStats:
    """How often a candidate agreed with the version in production. Counts are texts."""

    version: str
    shadow: str
    task: "TaskType"  # of the version in production
    since: float  # Unix time
    agreed: int = 0  # see `compare_shadow_outputs`
    differed: int = 0
    total_difference: float = 0.0  # sum over texts, see `compare_shadow_outputs`
    skipped: int = 0  # the service was busy, too many texts came at once, or it was not loaded
    failed: int = 0  # or the candidate has another task


class ShadowEvaluator:
    """Mirrors texts to the versions with the alias `shadow`. Use on the event loop only.

    No request waits for a shadow or fails because of one, and shadows run only while the service
    is idle.
    """

    def __init__(
        self,
        database: Database,
        pool: ModelPool,
        metrics: ServingMetrics,
        *,
        is_idle: Callable[[], bool],
    ) -> None:
        self._database = database
        self._pool = pool
        self._metrics = metrics
        self._is_idle = is_idle
        self._candidates: dict[str, ResolvedModel] = {}  # by the version in production
        self._read_at = -CANDIDATES_TTL_SECONDS
        self._stats: dict[tuple[str, str], ShadowStats] = {}  # by version and shadow
        self._retry_at: dict[str, float] = {}  # by artifact key, on the monotonic clock
        self._texts_in_flight = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def mirror(
        self,
        request: PredictRequest,
        served: ResolvedModel,
        model: LoadedModel,
        computed: Sequence[TextLogits],
    ) -> None:
        """Mirror a request that `served` has answered to the shadow of the model, if it has one and
        `served` is in production.

        `model`, the served one, has `computed` these logits.
        """
        if time.monotonic() - self._read_at >= CANDIDATES_TTL_SECONDS:
            self._read_at = time.monotonic()
            self._create_task(self._refresh_candidates())
        candidate = self._candidates.get(served.ref)
        if candidate is None or candidate.ref == served.ref:
            return
        stats = self._stats_of(served.ref, candidate.ref, model.predictor.task.type)
        runs = self._is_idle() and time.monotonic() >= self._retry_at.get(
            candidate.artifact.key, -math.inf
        )
        free = MAX_SHADOW_TEXTS_IN_FLIGHT - self._texts_in_flight if runs else 0
        texts = request.texts[:free]
        if skipped := len(request.texts) - len(texts):
            self._count(stats, "skipped", skipped)
        if texts:
            self._texts_in_flight += len(texts)
            request, computed = replace(request, texts=texts), computed[: len(texts)]
            self._create_task(self._compare(request, candidate, model, computed, stats))

    def list_stats_of_model(self, name: str) -> list[ShadowStats]:
        """Return the statistics of one model, the newest pair of versions first."""
        of_model = [each for each in self._stats.values() if each.version.startswith(f"{name}:")]
        return sorted(of_model, key=lambda stats: stats.since, reverse=True)

    def close(self) -> None:
        """Cancel the comparisons in flight."""
        for task in self._tasks:
            task.cancel()

    async def _refresh_candidates(self) -> None:
        try:
            self._candidates = await run_in_threadpool(self._query_candidates)
        except Exception as error:  # keep the candidates of the last query
            log.warning("shadow_candidates_query_failed", reason=repr(error))

    def _query_candidates(self) -> dict[str, ResolvedModel]:
        with self._database.read() as session:
            candidates = registry.resolve_all_with_alias(session, SHADOW)
            numbers = dict(repository.list_versions_with_alias(session, PRODUCTION))
        return {f"{each.name}:{numbers.get(each.name)}": each for each in candidates}

    async def _compare(
        self,
        request: PredictRequest,
        candidate: ResolvedModel,
        model: LoadedModel,
        computed: Sequence[TextLogits],
        stats: ShadowStats,
    ) -> None:
        texts, targets = len(request.texts), model.targets
        loaded = None
        try:
            loaded = await self._pool.load_spare(candidate)
            if loaded is None:
                log.warning("shadow_without_room", shadow=candidate.ref)
                self._count(stats, "skipped", texts)
                return
            if not _have_same_tasks(model, loaded):
                log.warning("shadow_of_another_task", shadow=candidate.ref, version=stats.version)
                self._count(stats, "failed", texts)
                self._retry_at[candidate.artifact.key] = time.monotonic() + RETRY_SECONDS
                return
            shadow_rows = await _predict(loaded, request)

            def compare() -> list[tuple[bool, float]]:
                return [
                    compare_shadow_outputs_by_target(targets, served, shadow)
                    if targets
                    else compare_shadow_outputs(stats.task, served, shadow)
                    for served, shadow in zip(
                        model.decode(computed, None), shadow_rows, strict=True
                    )
                ]

            comparisons = await model.run_decoding(compare, computed)
        except Exception as error:  # no caller waits for it
            log.warning("shadow_failed", shadow=candidate.ref, reason=repr(error))
            self._count(stats, "failed", texts)
        else:
            for agreed, difference in comparisons:
                stats.total_difference += difference
                self._count(stats, "agreed" if agreed else "differed", 1)
        finally:
            if loaded is None:
                self._retry_at[candidate.artifact.key] = time.monotonic() + RETRY_SECONDS
            self._texts_in_flight -= texts

    def _stats_of(self, version: str, shadow: str, task: "TaskType") -> ShadowStats:
        key = (version, shadow)
        if key not in self._stats:
            if len(self._stats) >= MAX_PAIRS:
                del self._stats[next(iter(self._stats))]  # the oldest
            self._stats[key] = ShadowStats(version, shadow, task, since=time.time())
        return self._stats[key]

    def _count(self, stats: ShadowStats, outcome: _ShadowOutcome, texts: int) -> None:
        setattr(stats, outcome, getattr(stats, outcome) + texts)
        self._metrics.shadow_texts.labels(stats.version, stats.shadow, outcome).inc(texts)

    def _create_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the event loop keeps only a weak reference
        task.add_done_callback(self._tasks.discard)


def _have_same_tasks(served: LoadedModel, shadow: LoadedModel) -> bool:
    """Return whether outputs can be compared. A shadow may lack targets."""
    if served.predictor.task.type != shadow.predictor.task.type:
        return False
    return all(shadow.targets.get(name, task) == task for name, task in served.targets.items())


def compare_shadow_outputs_by_target(
    tasks: "Mapping[str, TaskType]",
    served: "Sequence[DecodedOutput]",
    shadow: "Sequence[DecodedOutput]",
) -> tuple[bool, float]:
    """Return whether a shadow agrees on all targets, and the mean of how far it is off.

    A target that the shadow lacks differs entirely.
    """
    agreed, differences = True, []
    for name, task in tasks.items():
        ours, theirs = ([o for o in row if o.target == name] for row in (served, shadow))
        same, difference = compare_shadow_outputs(task, ours, theirs) if theirs else (False, 1.0)
        agreed &= same
        differences.append(difference)
    return agreed, fmean(differences)


def compare_shadow_outputs(
    task: "TaskType", served: "Sequence[DecodedOutput]", shadow: "Sequence[DecodedOutput]"
) -> tuple[bool, float]:
    """Return whether a shadow agrees on a text with the served model of this task, and how far it
    is off.

    They agree on the same label or the same set of labels, and on a number within the interval
    around the served one. The difference is that of the probability of the served label, the mean
    of all labels, or that of the numbers.
    """
    scores = {output.label: output.score for output in shadow}
    differences = [abs(output.score - scores.get(output.label, 0.0)) for output in served]
    if task == "multi_label":
        return _predicted(served) == _predicted(shadow), fmean(differences)
    best, number = served[0], shadow[0]
    if task == "regression":
        low, high = (best.score if end is None else end for end in (best.low, best.high))
        return low <= number.score <= high, differences[0]
    return number.label == best.label, differences[0]


def _predicted(outputs: "Sequence[DecodedOutput]") -> set[str]:
    return {output.label for output in outputs if output.predicted}


async def _predict(model: LoadedModel, request: PredictRequest) -> "list[list[DecodedOutput]]":
    tokenized = await model.tokenize(request.texts, truncate=True, side=request.truncation_side)
    deadline = time.monotonic() + SHADOW_TIMEOUT_SECONDS
    computed = await model.compute(tokenized, deadline=deadline)
    return await model.run_decoding(partial(model.decode, computed, None), computed)
