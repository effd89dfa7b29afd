"""Forget a text: remove it, never keep it again, and report where it still is."""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app import logging
from app.database.engines import Database, call_after_commit
from app.datasets import files
from app.datasets import service as datasets
from app.datasets.tables import Dataset
from app.errors import AppError
from app.feedback import repository as feedback
from app.feedback.errors import PredictionPositionRequired
from app.feedback.service import parse_prediction_id
from app.feedback.tables import Feedback
from app.labeling import repository as labeling
from app.privacy import repository as privacy
from app.privacy.text_hashes import TextHasher
from app.settings import Settings
from app.storage.store import Store
from app.text_erasure import repository
from app.text_erasure.errors import PredictionUnknown
from app.text_erasure.schemas import (
    DatasetWithText,
    ModelTrainedOnText,
    RemovedCounts,
    TextErasureRequest,
    TextErasureResult,
)
from app.traffic import repository as traffic
from app.traffic.tables import KeptPrediction
from lora_core.data.stratify import normalize_text
from lora_core.errors import LoraCoreError
from lora_core.specs.text_input import TextInput, build_text_input, text_sides

SEARCH_SECONDS = 100.0  # for all datasets
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
    also stores the hash of the text, so that nothing keeps it again. Stored datasets are only
    searched: a dataset never changes, since jobs refer to it.

    Raises `PredictionUnknown`, `PredictionPositionRequired`, and database errors. Datasets that
    cannot be searched are reported.
    """
    hasher = TextHasher.from_settings(settings)
    flush_traffic()  # so that the prediction of a moment ago is known
    with database.erase() as session:
        privacy.lock_text_storage(session)
        text, hashes = _identify(session, body, hasher)
        removed = _remove(session, text, hashes)
        call_after_commit(
            session, partial(logging.write_audit_line, "text_forgotten", **removed.model_dump())
        )
    if text is None or not body.search_datasets:
        return TextErasureResult(
            removed=removed, searched=False, datasets=[], unsearched=[], jobs=[], models=[]
        )
    found, unsearched = _search_datasets(database, store, settings, text)
    with database.read() as session:
        jobs, models = _find_models(session, {each.id: each.ref for each in found})
    return TextErasureResult(
        removed=removed,
        searched=True,
        datasets=found,
        unsearched=unsearched,
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
        text = build_text_input(body.text, body.text_pair)
        return text, (hasher.hash_input(text).whole,)
    assert body.prediction_id is not None  # noqa: S101 - the body was validated
    prediction_id, position = parse_prediction_id(body.prediction_id)
    kept = traffic.find_predictions_by_request(session, [prediction_id]).get(prediction_id, [])
    known: dict[int, KeptPrediction | Feedback] = {
        **feedback.find_by_prediction(session, prediction_id),
        **{each.position: each for each in kept},
    }
    texts = max([max(known, default=0) + 1, *(each.texts for each in kept)])
    if known and position is None and texts > 1:
        raise PredictionPositionRequired(
            prediction_id=body.prediction_id, texts=texts, at="prediction_id"
        )
    found = known.get(position or 0)
    if found is None:
        raise PredictionUnknown(prediction_id=body.prediction_id, at="prediction_id")
    known_text = None if found.text is None else build_text_input(found.text, found.text_pair)
    return known_text, (found.text_hash,)


def _remove(session: Session, text: TextInput | None, hashes: Sequence[str]) -> RemovedCounts:
    """Remove a text everywhere, and remember its hash."""
    privacy.add_forgotten_hashes(session, hashes)
    responses = 0
    if text is not None:
        responses = repository.delete_idempotent_responses_with_text(
            session, partial(contains_text_or_excerpt, text=text)
        )
    return RemovedCounts(
        predictions=traffic.delete_by_text_hashes(session, hashes),
        feedback=feedback.delete_by_text_hashes(session, hashes),
        labels=labeling.hide_text_and_delete_annotations(session, hashes),
        responses=responses,
    )


def contains_text_or_excerpt(value: Any, *, text: TextInput) -> bool:
    """Return whether any text in a JSON value is this one, contains it, or is the start of it.

    Of a pair, any of its texts counts. The checks of a dataset show the first characters of texts.
    """
    if isinstance(value, str):
        shown = normalize_text(value).removesuffix("…").rstrip()
        return any(_matches(shown, normalize_text(each)) for each in text_sides(text))
    if isinstance(value, Mapping):
        return any(
            contains_text_or_excerpt(each, text=text) for pair in value.items() for each in pair
        )
    return isinstance(value, list) and any(
        contains_text_or_excerpt(each, text=text) for each in value
    )


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
        stored = repository.list_datasets(session)
    deadline = time.monotonic() + SEARCH_SECONDS
    found: list[DatasetWithText] = []
    unsearched: list[str] = []
    directory = files.create_incoming_dir(settings)
    try:
        wanted = directory / "wanted.json"
        sides = dict(zip(("text", "text_pair"), text_sides(text), strict=False))
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
    for job_id, dataset_id in repository.list_jobs_reading_datasets(
        session, list(datasets_with_text)
    ):
        readers.setdefault(job_id, datasets_with_text[dataset_id])
    origins: dict[str, str] = {}  # of versions
    models = []
    for version in repository.list_versions(session):  # the oldest first: bases before others
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
