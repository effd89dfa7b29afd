"""Operations on prediction runs: create, cancel, delete, open the results."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app.csv_injection import escape_formula
from app.database.engines import Database, call_after_commit
from app.datasets import repository as datasets
from app.datasets.errors import DatasetNotFound
from app.datasets.tables import Dataset
from app.idempotency import service as idempotency
from app.idempotency.service import IdempotentRequest
from app.jobs import repository as jobs
from app.jobs.service import enqueue_and_save_response
from app.predictions import repository
from app.predictions.errors import OnlyNumbersPredicted, PredictionRunNotSucceeded, ResultsRemoved
from app.predictions.label_studio import LabelStudioProject
from app.predictions.schemas import PredictionRunCreate, PredictionRunView
from app.predictions.views import run_view
from app.queue.dispatch import WorkerNotifier
from app.queue.enums import DeviceClass, JobKind, JobState
from app.queue.tables import Job
from app.registry import service as registry
from app.settings import Settings
from app.storage import repository as artifacts
from app.storage.repository import delete_unused_artifacts
from app.storage.store import ArtifactRef, Store, read_manifest, verify_artifact
from lora_core import manifest
from lora_core.specs.predict import RESULT_KEYS, SCORES, TARGETS, PredictDataSpec, PredictSpec

_METHOD = "predict"  # in the column that holds baseline, lora or full for a job
_DEVICE_CLASS = DeviceClass.ANY

log = structlog.get_logger(__name__)


def create_run(
    session: Session,
    *,
    body: PredictionRunCreate,
    settings: Settings,
    notifier: WorkerNotifier,
    call: IdempotentRequest,
) -> PredictionRunView:
    """Store a run with the version `model` refers to now, and notify the workers after the commit.

    Raises `DatasetNotFound`, and what `registry.resolve_or_default`, `idempotency.reserve` and
    `enqueue_and_save_response` raise.
    """
    idempotency.reserve(session, call)
    model = registry.resolve_or_default(session, body.model)
    upload = datasets.resolve_dataset(session, body.dataset)
    if not datasets.lock_against_deletion(session, upload.id):
        raise DatasetNotFound(ref=repr(body.dataset))
    run = build_prediction_run(model.ref, upload, name=body.name, priority=body.priority)
    run.user_metadata = body.metadata
    view = enqueue_and_save_response(
        session, run, view_of=run_view, settings=settings, notifier=notifier, call=call
    )
    created = {"job_id": str(run.id), "model": model.ref}
    call_after_commit(session, partial(log.info, "created prediction run", **created))
    return view


def build_prediction_run(
    model: str, upload: Dataset, *, name: str | None, priority: int = 0
) -> Job:
    """Return a run of a version on a dataset, to be put into the queue."""
    source = PredictDataSpec(
        source=f"{upload.name}:{upload.version}",
        text_column=upload.text_column,
        text_pair_column=upload.text_pair_column,
    )
    spec = PredictSpec(model=model, data=source)
    return Job(
        kind=JobKind.PREDICTION,
        name=name,
        user_metadata={},
        method=_METHOD,
        device_class=_DEVICE_CLASS,
        priority=priority,
        spec=spec.model_dump(mode="json"),
        spec_version=spec.spec_version,
        dataset_ids={"all": str(upload.id)},
        base=model,
        total_steps=upload.rows,
    )


def cancel_run(session: Session, *, run_id: UUID) -> Job:
    """Cancel a queued run, or request that a running one stops. A finished run stays as it is.

    Raises `PredictionRunNotFound`.
    """
    jobs.request_cancel(session, run_id)
    return repository.get_run(session, run_id)


def delete_run(session: Session, *, run_id: UUID, store: Store) -> None:
    """Delete a finished run and its results.

    Raises `PredictionRunNotFound`, `PredictionRunNotFinished`.
    """
    delete_unused_artifacts(session, store, repository.delete_run(session, run_id))


class PredictionResults(NamedTuple):
    """The results of a run that succeeded."""

    directory: Path  # verified
    manifest: dict[str, Any]
    spec: PredictSpec


def get_verified_results(database: Database, store: Store, *, run_id: UUID) -> PredictionResults:
    """Return the results of a run.

    Raises `PredictionRunNotFound`, `PredictionRunNotSucceeded`, `ResultsRemoved`,
    `StoredArtifactCorrupt`.
    """
    ref, spec = _get_results(database, run_id)
    directory = verify_artifact(store, ref, name=f"prediction run {run_id}")
    return PredictionResults(directory, manifest.read(directory), spec)


def _get_results(database: Database, run_id: UUID) -> tuple[ArtifactRef, PredictSpec]:
    with database.read() as session:
        run = repository.get_run(session, run_id)
        if run.state != JobState.SUCCEEDED:
            raise PredictionRunNotSucceeded(run_id=run_id, state=run.state)
        if run.artifact_id is None:
            raise ResultsRemoved(run_id=run_id)
        ref = artifacts.get_artifact(session, run.artifact_id).ref
        return ref, PredictSpec.model_validate(run.spec)


def get_label_studio_project(
    database: Database, store: Store, *, run_id: UUID
) -> LabelStudioProject:
    """Return the Label Studio project for the results of a run. Their rows are not read.

    Raises `OnlyNumbersPredicted`, and what `get_verified_results` raises.
    """
    ref, spec = _get_results(database, run_id)
    facts = read_manifest(store, ref, name=f"prediction run {run_id}")
    return build_label_studio_project(facts, spec, run_id=run_id)


def build_label_studio_project(
    facts: Mapping[str, Any], spec: PredictSpec, *, run_id: UUID
) -> LabelStudioProject:
    """Return the Label Studio project for a manifest of results. Raises `OnlyNumbersPredicted`."""
    project = LabelStudioProject.of_results(facts, model=spec.model, data=spec.data)
    if project is None:
        raise OnlyNumbersPredicted(run_id=run_id)
    return project


# -- Results for download: the stored JSON lines, CSV, or tasks for Label Studio -------------------


ResultsFormat = Literal["jsonl", "csv", "label-studio"]
MEDIA_TYPES: dict[ResultsFormat, str] = {
    "jsonl": "application/jsonl; charset=utf-8",
    "csv": "text/csv; charset=utf-8; header=present",
    "label-studio": "application/json",
}
EXTENSIONS: dict[ResultsFormat, str] = {"jsonl": "jsonl", "csv": "csv", "label-studio": "json"}
CHUNK_BYTES = 1 << 18  # bytes
ROWS_PER_CHUNK = 200  # converted to CSV at a time


def stream_results_as_jsonl(file: BinaryIO) -> Iterator[bytes]:
    """Yield the bytes of the file, and close it at the end."""
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def stream_results_as_csv(
    file: BinaryIO, manifest_data: Mapping[str, Any], *, spreadsheet: bool = False
) -> Iterator[bytes]:
    """Yield CSV: the columns are those of the file, of its task, and the score of each label.

    Lists, objects, true and false are written as JSON, null as an empty cell. With `spreadsheet`,
    cells are escaped so that a spreadsheet does not run them as formulas.
    """
    # Of several targets, the cells of each; older runs have no task: all were single-label.
    targets: Mapping[str, Any] = manifest_data.get("targets") or {
        "": {"task": manifest_data.get("task", "single_label"), "labels": manifest_data["labels"]}
    }
    answers = [
        (target, key, label)
        for target, each in targets.items()
        for key, label in [
            *((key, None) for key in RESULT_KEYS[each["task"]]),
            *((SCORES, label) for label in each["labels"]),
        ]
    ]
    header = [
        f"{target and target + '.'}{key}{'' if label is None else '.' + label}"
        for target, key, label in answers
    ]
    columns = manifest_data["columns"]

    def encode(rows: list[list[Any]]) -> bytes:
        return _csv_bytes(
            [[escape_formula(cell) for cell in row] for row in rows] if spreadsheet else rows
        )

    with file:
        yield encode([[*columns, *header]])
        while lines := list(islice(file, ROWS_PER_CHUNK)):
            yield encode([_csv_cells(json.loads(line), columns, answers) for line in lines])


def _csv_cells(
    row: dict[str, Any], columns: Sequence[str], answers: Sequence[tuple[str, str, str | None]]
) -> list[Any]:
    """Return the cells of the file, then those of (target, key, label). Target "": the only one."""
    cells = [row.get(name) for name in columns]
    for target, key, label in answers:
        of_target = row[TARGETS][target] if target else row
        cells.append(of_target.get(key) if label is None else of_target[key][label])
    return list(map(_csv_cell, cells))


def _csv_cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, bool | list | dict) else value


def _csv_bytes(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
