"""What callers do with prediction runs: submit, cancel, delete, read the results."""

from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app.database.engines import Database
from app.datasets import repository as datasets
from app.datasets.errors import DatasetNotFound
from app.idempotency import service as idempotency
from app.idempotency.service import Call
from app.jobs import repository as jobs
from app.jobs.service import enqueue
from app.predictions import repository
from app.predictions.errors import NoResults, ResultsRemoved
from app.predictions.schemas import PredictionCreate, PredictionView
from app.queue.dispatch import JobQueue
from app.queue.states import JobState, Kind, Lane
from app.queue.tables import Job
from app.registry import service as registry
from app.settings import Settings
from app.storage import repository as artifacts
from app.storage.archive import verified
from app.storage.service import forget_unused
from app.storage.store import Store
from lora_core import manifest
from lora_core.specs.predict import PredictSpec, TextsSpec

METHOD = "predict"  # in the column where a job has baseline, lora or full
LANE = Lane.ANY

log = structlog.get_logger(__name__)


def submit(
    session: Session, *, body: PredictionCreate, settings: Settings, queue: JobQueue, call: Call
) -> PredictionView:
    """Store a run with the version that `model` means now, commit, then tell the workers.

    Raises `DatasetNotFound`, and what `registry.resolve`, `idempotency.begin` and `enqueue` raise.
    """
    idempotency.begin(session, call)
    model = registry.find(session, body.model)
    upload = datasets.resolve(session, body.dataset)
    if not datasets.hold(session, upload.id):
        raise DatasetNotFound(ref=repr(body.dataset))
    source = TextsSpec(source=f"{upload.name}:{upload.version}", text_column=upload.text_column)
    spec = PredictSpec(model=model.ref, data=source)
    run = Job(
        kind=Kind.PREDICTION,
        name=body.name,
        labels=body.metadata,
        method=METHOD,
        lane=LANE,
        priority=body.priority,
        spec=spec.model_dump(mode="json"),
        spec_version=spec.spec_version,
        dataset_ids={"all": str(upload.id)},
        base=model.ref,
        total_steps=upload.rows,
    )
    view = enqueue(
        session, run, view_of=PredictionView.of, settings=settings, queue=queue, call=call
    )
    log.info("prediction run submitted", job_id=str(run.id), model=model.ref)
    return view


def cancel(session: Session, *, run_id: UUID) -> Job:
    """A queued run is cancelled, a running one asked to stop, an ended one stays as it is.

    Raises `PredictionNotFound`.
    """
    jobs.request_cancel(session, run_id)
    run = repository.get(session, run_id)
    session.commit()
    return run


def delete(session: Session, *, run_id: UUID, store: Store) -> None:
    """Forget a run that has ended, and its results.

    Raises `PredictionNotFound`, `PredictionNotFinished`.
    """
    forget_unused(session, store, repository.remove(session, run_id))


def results(database: Database, store: Store, *, run_id: UUID) -> tuple[Path, dict[str, Any]]:
    """The directory of the results, every byte checked, and its manifest.

    Raises `PredictionNotFound`, `NoResults`, `ResultsRemoved`, `ArtifactDamaged`.
    """
    with database.read() as session:
        run = repository.get(session, run_id)
        if run.state != JobState.SUCCEEDED:
            raise NoResults(run_id=run_id, state=run.state)
        if run.artifact_id is None:
            raise ResultsRemoved(run_id=run_id)
        ref = artifacts.get(session, run.artifact_id).ref
    directory = verified(store, ref, name=f"prediction run {run_id}")
    return directory, manifest.read(directory)
