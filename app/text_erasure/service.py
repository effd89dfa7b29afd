"""Forget a text: remove it, never keep it again, and report where it still is."""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app import logging
from app.database.base import read_clock
from app.database.engines import Database, call_after_commit
from app.datasets import files
from app.datasets import service as datasets
from app.datasets.tables import Dataset
from app.errors import AppError
from app.feedback import repository as feedback
from app.feedback.errors import PredictionPositionRequired
from app.feedback.tables import Feedback
from app.labeling import repository as labeling
from app.privacy import repository as privacy
from app.privacy.text_hashes import TextHasher
from app.settings import Settings
from app.storage.store import Store
from app.text_erasure import repository
from app.text_erasure.errors import PredictionUnknown
from app.text_erasure.repository import IdempotentResponseKey
from app.text_erasure.schemas import (
    DatasetWithText,
    ModelTrainedOnText,
    ReaderOfDeletedDatasetView,
    RemovedCounts,
    TextErasureRequest,
    TextErasureResult,
)
from app.traffic import repository as traffic
from app.traffic.repository import parse_request_id_and_position
from app.traffic.tables import KeptPrediction
from lora_core.data.stratify import normalize_text
from lora_core.errors import LoraCoreError
from lora_core.specs.text_input import TextInput, text_or_pair, texts_of_input

SEARCH_SECONDS = 100.0  # for all datasets
# Longer than any transaction: a response that it stores is not visible before its commit.
_TRANSACTION_SECONDS = 600.0
_MIN_PART_CHARACTERS = 20  # a shorter text is only recognized as a whole, not within another

log = structlog.get_logger(__name__)


def erase_text(
    database: Database,
    store: Store,
    *,
    settings: Settings,
    body: TextErasureRequest,
    flush_traffic: Callable[[], None],
) -> TextErasureResult:
    """Forget a text.

    Kept predictions, feedback, labels and stored responses are removed in one transaction, which
    also stores the hash of the text, so that nothing keeps it again. Most responses are read before
    it, since others wait for it and there may be very many. Stored datasets are only
    searched: a dataset never changes, since jobs refer to it.

    Raises `PredictionUnknown`, `PredictionPositionRequired`, and database errors. Datasets that
    cannot be searched are reported.
    """
    hasher = TextHasher.from_settings(settings)
    flush_traffic()  # so that the prediction of a moment ago is known
    with database.read() as session:
        read_at = read_clock(session)
        text, hashes = _identify(session, body, hasher)
    responses = _find_responses(database.read, text)
    with database.erase() as session:
        privacy.lock_text_storage(session)
        responses |= _find_responses(
            lambda: nullcontext(session), text, created_since=read_at - _TRANSACTION_SECONDS
        )
        removed = _remove(session, hashes, responses)
        call_after_commit(
            session, partial(logging.write_audit_line, "text_forgotten", **removed.model_dump())
        )
    if text is None or not body.search_datasets:
        return TextErasureResult(
            removed=removed,
            searched=False,
            datasets=[],
            unsearched=[],
            readers_of_deleted=[],
            jobs=[],
            models=[],
        )
    found, unsearched = _search_datasets(database, store, settings, text)
    with database.read() as session:
        jobs, models = _find_models(session, {each.id: each.ref for each in found})
        readers = repository.list_readers_of_deleted_datasets(session)
    return TextErasureResult(
        removed=removed,
        searched=True,
        datasets=found,
        unsearched=unsearched,
        readers_of_deleted=[ReaderOfDeletedDatasetView(**each._asdict()) for each in readers],
        jobs=jobs,
        models=models,
    )


def _identify(
    session: Session, body: TextErasureRequest, hasher: TextHasher
) -> tuple[TextInput | None, Sequence[str]]:
    """Return the text, if it is known, and its hash.

    Raises `PredictionUnknown`, `PredictionPositionRequired`.
    """
    if body.text is not None:
        text = text_or_pair(body.text, body.text_pair)
        return text, (hasher.hash_input(text).whole,)
    assert body.prediction_id is not None  # noqa: S101 - the body was validated
    prediction_id, position = parse_request_id_and_position(body.prediction_id)
    kept = traffic.find_predictions_by_request(session, [prediction_id]).get(prediction_id, [])
    rows: list[KeptPrediction | Feedback] = [
        *feedback.list_feedback_on_prediction(session, prediction_id),
        *kept,
    ]
    # Any of them may lack the text: the last one counts, and those with a text come last.
    known = {
        each.position or 0: each for each in sorted(rows, key=lambda each: each.text is not None)
    }
    texts = max([max(known, default=0) + 1, *(each.texts for each in kept)])
    if known and position is None and texts > 1:
        raise PredictionPositionRequired(
            prediction_id=body.prediction_id, texts=texts, at="prediction_id"
        )
    found = known.get(position or 0)
    if found is None:
        raise PredictionUnknown(prediction_id=body.prediction_id, at="prediction_id")
    known_text = None if found.text is None else text_or_pair(found.text, found.text_pair)
    return known_text, (found.text_hash,)


def _find_responses(
    open_session: Callable[[], AbstractContextManager[Session]],
    text: TextInput | None,
    *,
    created_since: float = 0.0,
) -> set[IdempotentResponseKey]:
    """Return the stored responses with a text, if it is known. Each page has its own session."""
    found: set[IdempotentResponseKey] = set()
    after: IdempotentResponseKey | None = None
    while text is not None:
        with open_session() as session:
            page = repository.list_idempotent_responses(
                session, after=after, created_since=created_since
            )
        found.update(key for key, body in page if contains_text_or_excerpt(body, text=text))
        if len(page) < repository.PAGE_SIZE:
            break
        after = page[-1][0]
    return found


def _remove(
    session: Session, hashes: Sequence[str], responses: Iterable[IdempotentResponseKey]
) -> RemovedCounts:
    """Remove a text everywhere, and remember its hash."""
    privacy.add_forgotten_hashes(session, hashes)
    return RemovedCounts(
        predictions=traffic.delete_by_text_hashes(session, hashes),
        feedback=feedback.delete_by_text_hashes(session, hashes),
        labels=labeling.forget_texts_by_hashes(session, hashes),
        responses=repository.delete_idempotent_responses(session, responses),
    )


def contains_text_or_excerpt(value: Any, *, text: TextInput) -> bool:
    """Return whether any text in a JSON value is this one, contains it, or is the start of it.

    Of a pair, any of its texts counts. The checks of a dataset show the first characters of texts.
    """
    if isinstance(value, str):
        shown = _in_one_line(value).removesuffix("…").rstrip()
        return any(_matches(shown, _in_one_line(each)) for each in texts_of_input(text))
    if isinstance(value, Mapping):
        return any(
            contains_text_or_excerpt(each, text=text) for pair in value.items() for each in pair
        )
    return isinstance(value, list) and any(
        contains_text_or_excerpt(each, text=text) for each in value
    )


def _in_one_line(text: str) -> str:
    """Return the normalized text with single spaces, as the checks of a dataset show it."""
    return " ".join(normalize_text(text).split())


def _matches(shown: str, text: str) -> bool:
    return (
        shown == text
        or (len(text) >= _MIN_PART_CHARACTERS and text in shown)
        or (len(shown) >= _MIN_PART_CHARACTERS and text.startswith(shown))
    )


# -- Where the text still is ----------------------------------------------------------------------


def _search_datasets(
    database: Database, store: Store, settings: Settings, text: TextInput
) -> tuple[list[DatasetWithText], list[str]]:
    """Return the datasets with the text, and the references of those that were not searched.

    Each file is read in a child process with resource limits, as for every other purpose.
    """
    with database.read() as session:
        stored = repository.list_stored_datasets(session)
    deadline = time.monotonic() + SEARCH_SECONDS
    found: list[DatasetWithText] = []
    unsearched: list[str] = []
    directory = files.create_temporary_upload_dir(settings)
    try:
        wanted = directory / "wanted.json"
        sides = dict(zip(("text", "text_pair"), texts_of_input(text), strict=False))
        wanted.write_text(json.dumps(sides), encoding="utf-8")
        for dataset in stored:
            ref = f"{dataset.name}:{dataset.version}"
            report = None
            if time.monotonic() < deadline:
                report = _search(store, settings, dataset, wanted)
            if report is None:
                unsearched.append(ref)
            elif report["count"]:
                found.append(
                    DatasetWithText(
                        ref=ref, id=dataset.id, count=report["count"], rows=report["rows"]
                    )
                )
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return found, unsearched


def _search(
    store: Store, settings: Settings, dataset: Dataset, wanted: Path
) -> dict[str, Any] | None:
    """Return the rows of a dataset with the text; None if it cannot be read."""
    try:
        return datasets.find_rows_by_text(store, settings=settings, dataset=dataset, wanted=wanted)
    except (AppError, LoraCoreError) as error:
        log.warning("dataset_not_searched", dataset=str(dataset.id), reason=error.code)
        return None


def _find_models(
    session: Session, datasets_with_text: Mapping[UUID, str]
) -> tuple[list[UUID], list[ModelTrainedOnText]]:
    """Return the jobs that read these datasets, and the versions made from these jobs or, in turn,
    trained further from such a version."""
    readers: dict[UUID, str] = {}
    for job_id, dataset_id in repository.list_job_dataset_pairs(session, list(datasets_with_text)):
        readers.setdefault(job_id, datasets_with_text[dataset_id])
    origins: dict[str, str] = {}  # of versions
    models = []
    for version in repository.list_version_origins(
        session
    ):  # the oldest first: bases before others
        origin = readers.get(version.job_id) if version.job_id else None
        if origin is None and version.base in origins:
            origin = version.base
        if origin is not None:
            origins[version.ref] = origin
            models.append(
                ModelTrainedOnText(
                    ref=version.ref,
                    aliases=version.aliases,
                    job_id=version.job_id,
                    trained_on=origin,
                )
            )
    return list(readers), models
