"""What a process keeps of labeling projects: texts, vectors, and suggestions.

All of it can be rebuilt from the database and the store, so any number of processes agree: which
text was chosen, who has it, and what was said of it is only in the database.
"""

import asyncio
import json
import mmap
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import numpy as np
import structlog
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool

from app.database.engines import Database
from app.datasets import files
from app.datasets import service as datasets
from app.datasets.tables import Dataset
from app.errors import ConcurrencyLimitReached
from app.http.concurrency import RETRY_AFTER_SECONDS
from app.labeling import repository
from app.labeling.repository import NewChosenText
from app.labeling.resolved_labels import ResolvedLabel, resolve_labels
from app.labeling.schemas import ChosenTextReason, LabelingTaskType
from app.labeling.tables import LabelingProject
from app.privacy.text_hashes import InputHashes, TextHasher
from app.queue.tables import Job
from app.resources import Resources
from app.storage import repository as artifacts
from app.storage.errors import ArtifactNotFound, StoredArtifactCorrupt
from app.storage.store import verify_artifact
from lora_core.specs.embed import VECTORS_FILE
from lora_core.specs.text_input import text_or_pair

if TYPE_CHECKING:
    from lora_core.active_learning.label_suggestions import SuggestionModel
    from lora_core.active_learning.suggestion_accuracy import MetricEstimate

MAX_POOLS = 8  # in the memory of a process
MAX_POOL_BYTES = 4 * 10**9  # of their texts and vectors, which are mapped from files
MAX_LOADS = 16  # requests that load a pool or wait for it, of the 40 threads for requests
DROP_SECONDS = 60.0  # from the deletion of a dataset until no process has its texts
WAIT_FOR_FIT_SECONDS = 1.0  # of a request that shows the accuracy; a fit may take minutes
REFIT_CHANGES = 10  # labels until the suggestions are fitted again
MIN_RANDOM_TEXTS = 20  # below, accuracy is not estimated: no need to load a pool for it

Vectors = NDArray[np.float32]  # (texts, width)

log = structlog.get_logger(__name__)


class PoolText(NamedTuple):
    """A text, or a pair of texts."""

    text: str
    text_pair: str | None


class PoolTexts:
    """The texts of a dataset, in the order of its file, mapped from a file that has no name."""

    def __init__(self, file: Path) -> None:
        """Map a file that `lora_core texts` wrote. It may be deleted afterwards."""
        with file.open("rb") as opened:
            self._lines = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        starts, rows = [0], list[int]()
        for line in iter(self._lines.readline, b""):
            starts.append(starts[-1] + len(line))
            rows.append(int(line[1:24].partition(b",")[0]))
        self._starts = np.array(starts, dtype=np.int64)
        self.rows: NDArray[np.int64] = np.array(rows, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> PoolText:
        _, text, text_pair = json.loads(self._lines[self._starts[index] : self._starts[index + 1]])
        return PoolText(text, text_pair)

    def find_index_of_row(self, row: int) -> int | None:
        """Return the index of a row of the file; None if it has no text."""
        index = int(np.searchsorted(self.rows, row))
        return index if index < len(self.rows) and self.rows[index] == row else None

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return len(self._lines)


@dataclass(frozen=True)
class FittedSuggestions:
    """What was computed from the labels at one time."""

    changes: int  # of the project at that time
    indices: NDArray[np.int64]  # of the labeled texts
    labels: list[ResolvedLabel]  # theirs
    model: "SuggestionModel | None"  # None: too few labels
    uncertainty: NDArray[np.float64] | None  # (texts,); None: too few labels that are not random
    accuracy: "MetricEstimate | None"


@dataclass
class Pool:
    """The texts of a project with what is known about them."""

    project_id: UUID
    texts: PoolTexts
    task: LabelingTaskType
    random_share: float
    overlap: float
    seed: int
    hasher: TextHasher
    vectors: Vectors | None = None
    fitted: FittedSuggestions | None = None
    fitting: "futures.Future[None] | None" = None
    _choosing: Lock = field(default_factory=Lock)
    _taken: NDArray[np.bool_] = field(init=False)  # (texts,) chosen at some time
    _random: NDArray[np.bool_] = field(init=False)  # (texts,) and as a random one
    _position: int = 0  # number of choices that `_taken` has

    def __post_init__(self) -> None:
        self._taken = np.zeros(len(self.texts), dtype=bool)
        self._random = np.zeros(len(self.texts), dtype=bool)

    @property
    def bytes(self) -> int:
        """Size of the files that are mapped."""
        return self.texts.bytes + (0 if self.vectors is None else self.vectors.nbytes)

    def is_stale(self, changes: int) -> bool:
        """Return whether the suggestions should be fitted again: after every tenth label, and
        after every one as long as there is no model."""
        if self.fitted is None:
            return changes > 0
        every = REFIT_CHANGES if self.fitted.model else 1
        return changes // every > self.fitted.changes // every

    def choose(self, database: Database, count: int) -> "NewChosenTexts":
        """Choose the next texts. Nothing is stored yet: others may choose at the same time."""
        from lora_core.active_learning.selection import choose_next

        with self._choosing:
            with database.read() as session:
                chosen = repository.list_chosen_texts(
                    session, self.project_id, since=self._position
                )
            for position, row, is_random in chosen:
                self._position = position + 1
                if (index := self.texts.find_index_of_row(row)) is not None:
                    self._taken[index] = True
                    self._random[index] = is_random
            choices = choose_next(
                count,
                available=~self._taken,
                random=self._random,
                vectors=self.vectors,
                uncertainty=None if self.fitted is None else self.fitted.uncertainty,
                random_share=self.random_share,
                seed=self.seed,
                position=self._position,
            )
            position = self._position
        return NewChosenTexts(
            position,
            [
                NewChosenText(
                    int(self.texts.rows[each.row]),
                    ChosenTextReason(each.reason.value),
                    self.hash_text_at(each.row),
                    self._annotations_wanted(position + offset),
                )
                for offset, each in enumerate(choices)
            ],
        )

    def hash_text_at(self, index: int) -> InputHashes:
        """Return the hashes that a text is forgotten by."""
        return self.hasher.hash_input(text_or_pair(*self.texts[index]))

    def _annotations_wanted(self, position: int) -> int:
        draw = np.random.default_rng([self.seed, 1, position]).random()
        return 2 if draw < self.overlap else 1


class NewChosenTexts(NamedTuple):
    """The next texts of a project whose first `position` texts are chosen."""

    position: int
    choices: list[NewChosenText]


class LabelingPools:
    """The pools of a process. The least recently used ones are dropped."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._pools: OrderedDict[UUID, Pool] = OrderedDict()
        self._lock = Lock()
        self._loading = Lock()  # one at a time: each reads a whole file in a child process
        self._loads = BoundedSemaphore(MAX_LOADS)
        self._executor = futures.ThreadPoolExecutor(1, thread_name_prefix="suggestions")

    def close(self) -> None:
        """Stop fitting."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    async def drop_deleted_regularly(self) -> None:
        """Drop the texts of deleted projects and datasets every minute, until cancelled."""
        while True:
            await asyncio.sleep(DROP_SECONDS)
            try:
                await run_in_threadpool(self._drop_deleted)
            except Exception:
                log.exception("failed to drop deleted texts")

    def open(self, project: LabelingProject, dataset: Dataset, job: Job | None) -> Pool:
        """Return the pool of a project, with vectors once its job has computed them.

        The first call of a process reads the file, which takes seconds. Raises
        `ConcurrencyLimitReached`, and what `FileInspector.extract_texts_to_jsonl` raises.
        """
        pool = self._find(project.id)
        if pool is None:
            with self._turn_to_load():
                pool = self._find(project.id) or self._load(project, dataset)
        if pool.vectors is None and job is not None and job.artifact_id is not None:
            with self._turn_to_load():
                if pool.vectors is None:
                    pool.vectors = self._load_vectors(job, job.artifact_id, pool)
        self._drop_oldest()
        return pool

    @contextmanager
    def _turn_to_load(self) -> Iterator[None]:
        """Wait for other loads, unless too many wait: requests of all kinds share the threads."""
        if not self._loads.acquire(blocking=False):
            raise ConcurrencyLimitReached(limit=MAX_LOADS, retry_after=RETRY_AFTER_SECONDS)
        try:
            with self._loading:
                yield
        finally:
            self._loads.release()

    def refit_if_stale(self, pool: Pool, changes: int, *, wait: bool = False) -> None:
        """Fit the suggestions again after some changes, in a thread; `wait` a moment for it."""
        for _ in range(2 if wait else 1):  # a fit under way may have begun before these changes
            if pool.vectors is None or not pool.is_stale(changes):
                return
            with self._lock:
                if pool.fitting is None or pool.fitting.done():
                    pool.fitting = self._executor.submit(self._refit, pool)
                fitting = pool.fitting
            if wait:
                futures.wait([fitting], WAIT_FOR_FIT_SECONDS)

    def _refit(self, pool: Pool) -> None:
        try:
            with self._resources.database.read() as session:
                changes = repository.read_change_count(session, pool.project_id)
                stored = repository.read_labels(session, pool.project_id)
            pool.fitted = fit_suggestions(pool, resolve_labels(stored, pool.task), changes)
        except Exception:
            log.exception("failed to fit suggestions", project=str(pool.project_id))

    def is_behind(self, project: LabelingProject) -> bool:
        """Return whether a fit is due, or this process does not know."""
        pool = self._find(project.id)
        return pool is None or pool.is_stale(project.changes)

    def _find(self, project_id: UUID) -> Pool | None:
        with self._lock:
            pool = self._pools.get(project_id)
            if pool is not None:
                self._pools.move_to_end(project_id)
            return pool

    def _drop_oldest(self) -> None:
        with self._lock:
            while len(self._pools) > 1 and (
                len(self._pools) > MAX_POOLS
                or sum(pool.bytes for pool in self._pools.values()) > MAX_POOL_BYTES
            ):
                self._pools.popitem(last=False)

    def _drop_deleted(self) -> None:
        with self._lock:
            ids = list(self._pools)
        if not ids:
            return
        with self._resources.database.read() as session:
            existing = repository.filter_project_ids_with_dataset(session, ids)
        with self._lock:
            for project_id in ids:
                if project_id not in existing:
                    self._pools.pop(project_id, None)

    def _load(self, project: LabelingProject, dataset: Dataset) -> Pool:
        pool = Pool(
            project_id=project.id,
            texts=self._read_texts(dataset),
            task=project.task,  # type: ignore[arg-type]  # one of these
            random_share=project.random_share,
            overlap=project.overlap,
            seed=project.seed,
            hasher=TextHasher.from_settings(self._resources.settings),
        )
        with self._lock:
            self._pools[project.id] = pool
        return pool

    def _read_texts(self, dataset: Dataset) -> PoolTexts:
        settings, store = self._resources.settings, self._resources.store
        directory = files.create_temporary_upload_dir(settings)
        try:
            target = directory / "texts.jsonl"
            datasets.extract_texts_to_jsonl(
                store, settings=settings, dataset=dataset, target=target
            )
            return PoolTexts(target)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _load_vectors(self, job: Job, artifact_id: UUID, pool: Pool) -> Vectors | None:
        store = self._resources.store
        try:
            with self._resources.database.read() as session:
                ref = artifacts.get_artifact(session, artifact_id).ref
            directory = verify_artifact(store, ref, name="vectors")
        except (ArtifactNotFound, StoredArtifactCorrupt):  # removed by somebody else, or damaged
            # Texts can be labeled without vectors. Once removed, they can be computed again.
            log.exception("vectors cannot be used", job=str(job.id))
            with self._resources.database.write() as session:
                repository.remove_vectors(session, store, job.id, artifact_id)
            job.artifact_id = None  # so that the response says it
            return None
        vectors = mmap_vectors(directory / VECTORS_FILE)
        return vectors if len(vectors) == len(pool.texts) else None


def mmap_vectors(file: Path) -> Vectors:
    """Map the one tensor of a safetensors file: the system reads the parts that are used.

    The file starts with the size of a JSON header, in eight bytes; the numbers follow it.
    """
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        header: dict[str, Any] = json.loads(opened.read(size))
    [(_, tensor)] = [each for each in header.items() if each[0] != "__metadata__"]
    first, _ = tensor["data_offsets"]
    vectors: Vectors = np.memmap(
        file, dtype="<f4", mode="r", offset=8 + size + first, shape=tuple(tensor["shape"])
    )
    return vectors


def fit_suggestions(pool: Pool, labels: list[ResolvedLabel], changes: int) -> FittedSuggestions:
    """Fit the suggestions, and estimate how good they are on the texts drawn at random."""
    from lora_core.active_learning.label_suggestions import (
        SuggestionModel,
        score_uncertainty_excluding_random_labels,
    )
    from lora_core.active_learning.suggestion_accuracy import estimate_suggestion_accuracy

    assert pool.vectors is not None  # noqa: S101 - the callers have checked it
    found = [(pool.texts.find_index_of_row(each.row), each) for each in labels]
    known = [(index, each) for index, each in found if index is not None]
    indices = np.array([index for index, _ in known], dtype=np.int64)
    labels = [each for _, each in known]
    values = [each.value for each in labels]
    x = np.asarray(pool.vectors[indices]) if len(indices) else np.zeros((0, 1), dtype=np.float32)
    model = SuggestionModel.fit(x, values, pool.task)
    random = [i for i, each in enumerate(labels) if each.is_random]
    uncertainty = score_uncertainty_excluding_random_labels(
        pool.vectors, indices, values, random, pool.task
    )
    accuracy = (
        estimate_suggestion_accuracy(x, values, random, pool.task, pool.seed) if model else None
    )
    return FittedSuggestions(changes, indices, labels, model, uncertainty, accuracy)
