"""The training examples that a text is nearest to, and whether it is unlike all of them.

The index of a version is read from its artifact when it is first needed. Texts are not in it: they
are read from the stored dataset, for callers that may read datasets, and a sample of them stays in
memory.
"""

import asyncio
import json
import shutil
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app.database.single_flight import SingleFlight
from app.datasets import files
from app.datasets import repository as datasets
from app.datasets import service as dataset_service
from app.datasets.errors import DatasetNotFound
from app.datasets.tables import Dataset
from app.errors import AppError
from app.jobs import repository as jobs
from app.jobs.data_sources import ALL_ROWS
from app.jobs.errors import JobNotFound
from app.privacy import repository as privacy
from app.privacy.text_hashes import TextHasher
from app.registry import repository as registry
from app.registry.errors import ModelNotFound
from app.registry.refs import ModelRef
from app.registry.service import ResolvedModel
from app.resources import Resources
from app.serving.batcher import TextLogits
from app.serving.errors import (
    DeadlineExceeded,
    ModelArtifactCorrupt,
    ModelLoadFailed,
    TooFewTextsForUnfamiliarity,
    VersionWithoutExamples,
)
from app.serving.schemas import Familiarity, HiddenReason, NearestExample
from lora_core.errors import LoraCoreError
from lora_core.errors.artifact import ArtifactCorrupt, NoNearestExamples
from lora_core.samples import reviews
from lora_core.specs.data import Split
from lora_core.specs.encoded_labels import decode_label, extract_target_label
from lora_core.specs.task import TaskType
from lora_core.specs.text_input import TextInput, text_or_pair, texts_of_input

if TYPE_CHECKING:
    from lora_core.nearest_examples import ExampleIndex

SHOWN = 5  # nearest examples of a text
MAX_CHARACTERS = 2000  # shown of a text
MAX_INDEXES = 32  # in memory, of at most 4 MB each
MAX_VERSIONS_WITH_TEXTS = 16  # in memory, of at most 600 texts each
TEXTS_TIMEOUT_SECONDS = 3.0  # an explanation waits no longer for texts, which are read on
RETRY_SECONDS = 60.0  # after texts could not be read
MAX_FILES_READ = 4  # at a time: each takes a thread and a child process

_Value = TypeVar("_Value")

log = structlog.get_logger()


class _RecentlyUsed(Generic[_Value]):
    """Values by the key of an artifact; the least recently used ones are dropped."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = Lock()  # threads add what they read
        self._values: OrderedDict[str, _Value] = OrderedDict()

    def get(self, key: str) -> _Value | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: str, value: _Value) -> None:
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._size:
                self._values.popitem(last=False)


class ExampleIndexCache:
    """The indexes of versions in use. Use on the event loop only."""

    def __init__(self, resources: Resources) -> None:
        self._store = resources.store
        self._loaded: _RecentlyUsed[ExampleIndex | _NoIndex] = _RecentlyUsed(MAX_INDEXES)
        self._loads: SingleFlight[str, ExampleIndex | _NoIndex] = SingleFlight(
            timeout_seconds=TEXTS_TIMEOUT_SECONDS
        )

    async def load_or_none(
        self, resolved: ResolvedModel, *, deadline: float
    ) -> "ExampleIndex | None":
        """Return the index of a version; None if it has none.

        An imported version has none: its rows are those of a dataset that is elsewhere. `deadline`
        is on the monotonic clock; a load continues after it. Raises `DeadlineExceeded`,
        `ModelArtifactCorrupt`, `ModelLoadFailed`, `StorageUnavailable`, `StorageRefused`.
        """
        if resolved.imported:
            return None
        key = resolved.artifact.key
        index = self._loaded.get(key)
        if index is None:
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    index = await self._loads.run(key, lambda: self._load(resolved))
            except TimeoutError:
                raise DeadlineExceeded() from None
        return None if isinstance(index, _NoIndex) else index

    async def get_with_threshold(
        self, resolved: ResolvedModel, *, deadline: float
    ) -> "ExampleIndex":
        """Return the index of a version that can tell which texts are unfamiliar.

        Raises `VersionWithoutExamples`, `TooFewTextsForUnfamiliarity`, and what `load_or_none`
        raises.
        """
        index = await self.load_or_none(resolved, deadline=deadline)
        if index is None:
            raise VersionWithoutExamples(ref=resolved.ref, at="abstain_unfamiliar")
        if index.threshold is None:
            raise TooFewTextsForUnfamiliarity(
                ref=resolved.ref,
                count=len(index.held_out),
                split=index.held_out_split,
                needed=_needed(index),
                at="abstain_unfamiliar",
            )
        return index

    def _load(self, resolved: ResolvedModel) -> "ExampleIndex | _NoIndex":
        index = self._read(resolved)
        self._loaded.put(resolved.artifact.key, index)
        return index

    def _read(self, resolved: ResolvedModel) -> "ExampleIndex | _NoIndex":
        from lora_core.nearest_examples import load_index

        try:
            directory = self._store.local_directory(resolved.artifact)
            return load_index(directory, digest=resolved.artifact.manifest_sha256)
        except NoNearestExamples:
            return _NoIndex()
        except ArtifactCorrupt as error:
            problem = error.detail["problem"]
            raise ModelArtifactCorrupt(ref=resolved.ref, problem=problem) from error
        except OSError as error:
            log.exception("nearest_examples_unreadable", model=resolved.ref)
            raise ModelLoadFailed(ref=resolved.ref, kind=type(error).__name__) from error


def _needed(index: "ExampleIndex") -> str:
    """Return which held-out texts are missing to an index without a threshold."""
    from lora_core.nearest_examples import MIN_HELD_OUT

    if len(index.held_out) < MIN_HELD_OUT:
        return f"{MIN_HELD_OUT} are"
    return "some that have words in common with five training examples are"


class _NoIndex:
    """A version from before indexes were stored, or a linear model without terms."""


def stack_output_states(outputs: Sequence[TextLogits]) -> Any:
    """Return the states (texts, width) of outputs that were computed with them."""
    from scipy.sparse import issparse, vstack

    states = [output.state for output in outputs]
    return vstack(states) if issparse(states[0]) else [state.numpy() for state in states]


def flag_unfamiliar_texts(index: "ExampleIndex", outputs: Sequence[TextLogits]) -> list[bool]:
    """Return which texts are unfamiliar, to an index that has a threshold."""
    threshold = index.threshold
    assert threshold is not None  # noqa: S101 - checked by `get_with_threshold`
    similarities = index.kth_neighbor_similarities(stack_output_states(outputs))
    return [similarity < threshold.similarity for similarity in similarities.tolist()]


# -- Texts of the examples ------------------------------------------------------------------------


class TrainingTextExcerpt(NamedTuple):
    """The beginning of a training text or pair, and the hashes that it is forgotten by."""

    sides: tuple[str, ...]
    hashes: tuple[str, ...]


TextsByRow = Mapping[int, TrainingTextExcerpt | HiddenReason]


class TrainingTextReader:
    """Texts of training examples, read from the stored datasets. Use on the event loop only."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._cache: _RecentlyUsed[Mapping[int, TrainingTextExcerpt]] = _RecentlyUsed(
            MAX_VERSIONS_WITH_TEXTS
        )
        self._failed_at: _RecentlyUsed[float] = _RecentlyUsed(MAX_VERSIONS_WITH_TEXTS)
        self._reading = BoundedSemaphore(MAX_FILES_READ)
        self._reads: SingleFlight[str, Mapping[int, TrainingTextExcerpt] | _Hidden] = SingleFlight(
            timeout_seconds=TEXTS_TIMEOUT_SECONDS
        )
        self._checks: SingleFlight[tuple[str, tuple[int, ...]], TextsByRow] = SingleFlight(
            timeout_seconds=TEXTS_TIMEOUT_SECONDS
        )

    async def find(
        self, resolved: ResolvedModel, index: "ExampleIndex", rows: Sequence[int]
    ) -> TextsByRow:
        """Return the texts of these rows of the index, or why they are not shown."""
        key = resolved.artifact.key
        unavailable = _Hidden("unavailable")
        texts: Mapping[int, TrainingTextExcerpt] | _Hidden | None = self._cache.get(key)
        if texts is None and self._failed_recently(key):
            texts = unavailable
        if texts is None:
            texts = await self._reads.run(
                key, partial(self._read, resolved, index), fallback=unavailable
            )
        if isinstance(texts, _Hidden):
            return dict.fromkeys(rows, texts.reason)
        return await self._checks.run(
            (key, tuple(rows)),
            partial(self._check, resolved, texts, rows),
            fallback=dict.fromkeys(rows, unavailable.reason),
        )

    def _failed_recently(self, key: str) -> bool:
        failed_at = self._failed_at.get(key)
        return failed_at is not None and time.monotonic() - failed_at < RETRY_SECONDS

    def _read(
        self, resolved: ResolvedModel, index: "ExampleIndex"
    ) -> "Mapping[int, TrainingTextExcerpt] | _Hidden":
        """Return the texts of all examples, and keep them. A failure is remembered, too."""
        with self._resources.database.read() as session:
            source = _find_source(session, resolved)
        if isinstance(source, _Hidden):
            return source
        # No thread waits for the files of other versions: all requests share a few dozen.
        if not self._reading.acquire(blocking=False):
            return _Hidden("unavailable")
        key = resolved.artifact.key
        try:
            texts = self._read_source(source, frozenset(index.rows))
        except (AppError, LoraCoreError, OSError) as error:
            log.warning("training_texts_unavailable", model=resolved.ref, why=repr(error))
            self._failed_at.put(key, time.monotonic())
            return _Hidden("unavailable")
        finally:
            self._reading.release()
        self._cache.put(key, texts)
        return texts

    def _check(
        self, resolved: ResolvedModel, texts: Mapping[int, TrainingTextExcerpt], rows: Sequence[int]
    ) -> TextsByRow:
        """Return the texts of these rows, unless they were deleted or forgotten since."""
        with self._resources.database.read() as session:
            source = _find_source(session, resolved)
            if isinstance(source, _Hidden):
                return dict.fromkeys(rows, source.reason)
            return _without_forgotten(session, texts, rows)

    def _read_source(
        self, source: Dataset | str, rows: frozenset[int]
    ) -> dict[int, TrainingTextExcerpt]:
        hasher = TextHasher.from_settings(self._resources.settings)
        if isinstance(source, str):
            numbered = enumerate(reviews.load_reviews(source), start=1)
            return {row: _stored(text, hasher) for row, (text, _) in numbered if row in rows}
        settings, store = self._resources.settings, self._resources.store
        directory = files.create_temporary_upload_dir(settings)
        try:
            target = directory / "texts.jsonl"
            dataset_service.extract_texts_to_jsonl(
                store, settings=settings, dataset=source, target=target
            )
            with target.open(encoding="utf-8") as lines:
                return {
                    row: _stored(text_or_pair(text, pair), hasher)
                    for row, text, pair in map(json.loads, _lines_of_rows(lines, rows))
                }
        finally:
            shutil.rmtree(directory, ignore_errors=True)


class _Hidden(NamedTuple):
    """Why the texts of a version cannot be read."""

    reason: HiddenReason


def _find_source(session: Session, resolved: ResolvedModel) -> Dataset | str | _Hidden:
    """Return the dataset that a version was trained on, or the name of a sample."""
    try:
        version = registry.get_version(session, ModelRef(resolved.name, number=resolved.number))
        if version.job_id is None:
            return _Hidden("elsewhere")
        job = jobs.get_training_job(session, version.job_id)
    except (ModelNotFound, JobNotFound):
        return _Hidden("deleted")
    dataset_id = job.dataset_ids.get(ALL_ROWS) or job.dataset_ids.get(Split.TRAIN)
    if dataset_id is not None:
        try:
            return datasets.get_dataset(session, UUID(dataset_id))
        except DatasetNotFound:
            return _Hidden("deleted")
    source = job.spec["data"]["source"]
    name = source if isinstance(source, str) else source[Split.TRAIN]
    return name if name in reviews.SAMPLES and reviews.is_available() else _Hidden("elsewhere")


def _lines_of_rows(lines: Iterable[str], rows: frozenset[int]) -> Iterator[str]:
    """Yield the lines of these rows. A line is a JSON array that begins with the row number."""
    return (line for line in lines if int(line[1 : line.index(",")]) in rows)


def _stored(text: TextInput, hasher: TextHasher) -> TrainingTextExcerpt:
    sides = tuple(side[:MAX_CHARACTERS] for side in texts_of_input(text))
    return TrainingTextExcerpt(sides, hasher.hash_input(text).all)


def _without_forgotten(
    session: Session, texts: Mapping[int, TrainingTextExcerpt], rows: Sequence[int]
) -> TextsByRow:
    found: dict[int, TrainingTextExcerpt | HiddenReason] = {
        row: texts.get(row, "unavailable") for row in rows
    }
    stored = {row: text for row, text in found.items() if isinstance(text, TrainingTextExcerpt)}
    forgotten = privacy.find_forgotten_hashes(
        session, [h for text in stored.values() for h in text.hashes]
    )
    return found | {
        row: "forgotten" for row, text in stored.items() if forgotten.intersection(text.hashes)
    }


# -- What a response says -------------------------------------------------------------------------


def familiarity_view(index: "ExampleIndex", similarity: float) -> Familiarity:
    """Return how a text whose fifth nearest example is this similar compares with others."""
    threshold = index.threshold
    if threshold is None:
        return Familiarity(
            unfamiliar=None, similarity=similarity, held_out_texts=len(index.held_out)
        )
    return Familiarity(
        unfamiliar=similarity < threshold.similarity,
        similarity=similarity,
        threshold=threshold.similarity,
        held_out_texts=threshold.held_out,
        expected_share=threshold.expected_share,
    )


def example_view(
    row: int,
    label: str,
    similarity: float,
    text: TrainingTextExcerpt | HiddenReason,
    *,
    task: TaskType,
    target: str | None,
) -> NearestExample:
    """Return a training example with its label, or that of the one of several targets."""
    value = decode_label(label if target is None else extract_target_label(label, target), task)
    shown: dict[str, Any] = {"hidden": text}
    if isinstance(text, TrainingTextExcerpt):
        shown = dict(zip(("text", "text_pair"), text.sides, strict=False))
    return NearestExample(row=row, similarity=similarity, **_label_field(value), **shown)


def _label_field(value: str | float | tuple[str, ...]) -> dict[str, Any]:
    match value:
        case str():
            return {"label": value}
        case tuple():
            return {"labels": list(value)}
        case _:
            return {"value": value}


async def find_familiarity_and_neighbors(
    index: "ExampleIndex",
    texts: TrainingTextReader | None,
    resolved: ResolvedModel,
    output: TextLogits,
    *,
    task: TaskType,
    target: str | None,
) -> tuple[Familiarity, list[NearestExample]]:
    """Return how familiar a text is, and its nearest training examples.

    Args:
        index: That of the version.
        texts: None: the caller may not read texts of datasets.
        resolved: The version.
        output: That of the text, with its state.
        task: Of the target.
        target: Which of several targets to show the labels of.
    """
    state = stack_output_states([output])
    neighbors = index.nearest(state, SHOWN)
    rows = [neighbor.row for neighbor in neighbors]
    found: TextsByRow = dict.fromkeys(rows, "scope")
    if texts is not None:
        found = await texts.find(resolved, index, rows)
    views = [
        example_view(*neighbor, found[neighbor.row], task=task, target=target)
        for neighbor in neighbors
    ]
    return familiarity_view(index, float(index.kth_neighbor_similarities(state)[0])), views
