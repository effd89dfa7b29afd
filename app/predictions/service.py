"""Operations on prediction runs: create, cancel, delete, open the results."""

from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app.database.engines import Database
from app.datasets import repository as datasets
from app.datasets.errors import DatasetNotFound
from app.idempotency import service as idempotency
from app.idempotency.service import IdempotentCall
from app.jobs import repository as jobs
from app.jobs.service import enqueue
from app.predictions import repository
from app.predictions.errors import NoResults, ResultsRemoved
from app.predictions.schemas import PredictionCreate, PredictionView
from app.queue.dispatch import JobQueue
from app.queue.states import DeviceClass, JobKind, JobState
from app.queue.tables import Job
from app.registry import service as registry
from app.settings import Settings
from app.storage import repository as artifacts
from app.storage.archive import verify_artifact
from app.storage.repository import delete_unused_artifacts
from app.storage.store import Store
from lora_core import manifest
from lora_core.specs.predict import PredictDataSpec, PredictSpec

METHOD = "predict"  # in the column that holds baseline, lora or full for a job
DEVICE_CLASS = DeviceClass.ANY

log = structlog.get_logger(__name__)


def create(
    session: Session,
    *,
    body: PredictionCreate,
    settings: Settings,
    queue: JobQueue,
    call: IdempotentCall,
) -> PredictionView:
    """Store a run with the version `model` refers to now, commit, then notify the workers.

    Raises `DatasetNotFound`, and what `registry.resolve_or_default`, `idempotency.reserve` and
    `enqueue` raise.
    """
    idempotency.reserve(session, call)
    model = registry.resolve_or_default(session, body.model)
    upload = datasets.resolve(session, body.dataset)
    if not datasets.lock_shared(session, upload.id):
        raise DatasetNotFound(ref=repr(body.dataset))
    source = PredictDataSpec(
        source=f"{upload.name}:{upload.version}", text_column=upload.text_column
    )
    spec = PredictSpec(model=model.ref, data=source)
    run = Job(
        kind=JobKind.PREDICTION,
        name=body.name,
        labels=body.metadata,
        method=METHOD,
        lane=DEVICE_CLASS,
        priority=body.priority,
        spec=spec.model_dump(mode="json"),
        spec_version=spec.spec_version,
        dataset_ids={"all": str(upload.id)},
        base=model.ref,
        total_steps=upload.rows,
    )
    view = enqueue(
        session, run, view_of=PredictionView.from_run, settings=settings, queue=queue, call=call
    )
    log.info("created prediction run", job_id=str(run.id), model=model.ref)
    return view


def cancel(session: Session, *, run_id: UUID) -> Job:
    """Cancel a queued run, or request that a running one stops. A finished run stays as it is.

    Raises `PredictionNotFound`.
    """
    jobs.request_cancel(session, run_id)
    run = repository.get(session, run_id)
    session.commit()
    return run


def delete(session: Session, *, run_id: UUID, store: Store) -> None:
    """Delete a finished run and its results.

    Raises `PredictionNotFound`, `PredictionNotFinished`.
    """
    delete_unused_artifacts(session, store, repository.delete_run(session, run_id))


def open_results(database: Database, store: Store, *, run_id: UUID) -> tuple[Path, dict[str, Any]]:
    """Return the verified directory of the results, and its manifest.

    Raises `PredictionNotFound`, `NoResults`, `ResultsRemoved`, `ArtifactDamaged`.
    """
    with database.read() as session:
        run = repository.get(session, run_id)
        if run.state != JobState.SUCCEEDED:
            raise NoResults(run_id=run_id, state=run.state)
        if run.artifact_id is None:
            raise ResultsRemoved(run_id=run_id)
        ref = artifacts.get_artifact(session, run.artifact_id).ref
    directory = verify_artifact(store, ref, name=f"prediction run {run_id}")
    return directory, manifest.read(directory)
