"""What the pages, the API and the command line show of MLflow."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy.orm import Session

from app.database.base import read_clock
from app.mlflow import repository, urls
from app.mlflow.errors import MlflowRunNotFound
from app.mlflow.schemas import MlflowRunView, MlflowSendFailureView, MlflowState, MlflowStatus
from app.outbox.enums import MlflowSyncState
from app.outbox.tables import MlflowServer

SILENT_SECONDS = 300.0  # after which no worker with the setting counts as running


def get_status(session: Session) -> MlflowStatus:
    """Return whether MLflow is connected, and what it lacks."""
    server = repository.find_server(session)
    if server is None:
        return MlflowStatus(
            state="off",
            tracking_uri=None,
            experiment=None,
            experiment_url=None,
            pending_runs=0,
            pending_models=0,
            failed_runs=0,
            last_success_at=None,
            next_attempt_at=None,
            last_error=None,
        )
    backlog = repository.count_backlog(session)
    state = _state(server, clock=read_clock(session))
    error = None
    if server.last_error_code is not None:
        error = MlflowSendFailureView(
            code=server.last_error_code,
            message=server.last_error or "",
            at=server.last_error_at or 0.0,
        )
    return MlflowStatus(
        state=state,
        tracking_uri=server.tracking_uri,
        experiment=server.experiment,
        experiment_url=urls.experiment_url(server),
        pending_runs=backlog.runs,
        pending_models=backlog.models,
        failed_runs=backlog.failed_runs,
        last_success_at=server.last_success_at,
        next_attempt_at=server.next_attempt_at if state == "failing" else None,
        last_error=error,
    )


def _state(server: MlflowServer, *, clock: float) -> MlflowState:
    if server.seen_at < clock - SILENT_SECONDS:
        return "waiting"
    if server.failures:
        return "failing"
    return "waiting" if server.last_success_at is None else "connected"


def get_run_of_job(session: Session, job_id: UUID) -> MlflowRunView:
    """Return the run of a job. Raises `MlflowRunNotFound`."""
    view = find_run_of_job(session, job_id)
    if view is None:
        raise MlflowRunNotFound(job_id=job_id)
    return view


def find_run_of_job(session: Session, job_id: UUID) -> MlflowRunView | None:
    """Return the run of a job or a sweep, if it has one."""
    return find_runs(session, [job_id]).get(job_id)


def find_runs(session: Session, job_ids: Collection[UUID]) -> dict[UUID, MlflowRunView]:
    """Return the runs that these jobs or sweeps have, by their ids."""
    server = repository.find_server(session)
    if server is None:
        return {}
    return {
        run.id: MlflowRunView(
            job_id=run.id,
            run_id=run.run_id,
            url=urls.run_url(server, run.run_id),
            status=run.status,
            complete=run.state == MlflowSyncState.SENT,
            last_error=run.last_error,
        )
        for run in repository.list_mlflow_runs(session, job_ids)
        if run.run_id is not None
    }


def find_last_mlflow_rejection(session: Session, row_id: UUID) -> str | None:
    """Return why MLflow rejected what it was last sent of a job, a sweep or a model."""
    row = repository.find_sent_run(session, row_id) or repository.find_sent_model(session, row_id)
    return None if row is None else row.last_error


def list_version_urls(session: Session, *, model_id: UUID, name: str) -> dict[int, str]:
    """Return the pages in MLflow of the versions of a model, by our number."""
    server, sent = repository.find_server(session), repository.find_sent_model(session, model_id)
    if server is None or sent is None:
        return {}
    return {
        int(number): urls.version_url(server, name, version)
        for number, version in sent.versions.items()
    }
