"""SQL on the outbox of MLflow: what is due, and which worker sends.

One worker sends at a time, so that all arrives in order: it holds the lease on the row of the
server. Each write of progress renews the lease first, which fails once another worker has taken
it. Only the database clock is compared.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Select, and_, case, delete, func, null, or_, select, update
from sqlalchemy.orm import Session

from app.database.base import now
from app.database.engines import acquire_transaction_lock
from app.datasets.tables import Dataset
from app.mlflow.connection import MlflowConnection
from app.mlflow.errors import MlflowError
from app.mlflow.run_data import SWEEP_STATUSES
from app.outbox.enums import MlflowSyncState
from app.outbox.tables import (
    MLFLOW_SERVER_ID,
    MlflowModel,
    MlflowModelChange,
    MlflowRun,
    MlflowServer,
)
from app.queue.enums import JobKind, JobState
from app.queue.fencing import NO_SESSION_SYNC
from app.queue.tables import Job, MetricPoint
from app.queue.transitions import backoff_expression
from app.registry.tables import ModelVersion
from app.sweeps.tables import Sweep

LEASE_SECONDS = 300.0  # longer than the requests between two renewals can take
CHECK_SECONDS = 60.0  # without anything to send, the connection is checked this often
FIRST_RETRY_SECONDS = 2.0  # while the server cannot be used; doubles with each failure
MAX_RETRY_SECONDS = 60.0

UNSENT_RUN: Mapping[str, Any] = {
    "run_id": None,
    "status": None,
    "has_params": False,
    "seq": 0,
    "steps": {},
}


class MlflowLeaseLost(Exception):
    """Another worker sends to MLflow now, so nothing may be written."""


class ServerClaim(NamedTuple):
    """The right to send, until the lease runs out or is released."""

    attempt: int
    failures: int  # in a row, before this attempt


@dataclass(frozen=True)
class Backlog:
    """What is not sent yet, whether it is due or waits, and what was given up."""

    runs: int
    models: int
    failed_runs: int


# The server


def register_server_and_fill_outbox(session: Session, connection: MlflowConnection) -> None:
    """Store where workers send to, and add to the outbox what it lacks.

    That is every unfinished job, and every model with versions. Another server or experiment than
    before starts empty: models, and jobs whose end was not sent, are sent to it from their
    beginning.
    """
    acquire_transaction_lock(session, "mlflow")
    # Locked first, as `renew_lease_and_update_server` does, so that a worker that sends meanwhile
    # waits or is fenced.
    server = session.get(MlflowServer, MLFLOW_SERVER_ID, with_for_update=True)
    target = (connection.tracking_uri, connection.experiment)
    if server is None:
        server = MlflowServer(id=MLFLOW_SERVER_ID)
        session.add(server)
    elif target != (server.tracking_uri, server.experiment):
        _reset_for_another_server(session)
        server.attempts += 1  # fences a worker that still sends to the one before
        server.lease_expires_at = server.experiment_id = server.last_success_at = None
        server.last_error_code = server.last_error = server.last_error_at = None
    server.tracking_uri, server.experiment = target
    server.failures, server.next_attempt_at, server.seen_at = 0, now(), now()
    session.flush()
    unfinished = select(Job.id).where(
        Job.kind == JobKind.TRAINING,
        Job.state.in_((JobState.QUEUED, JobState.RUNNING)),
        Job.id.not_in(select(MlflowRun.id)),
    )
    session.add_all(MlflowRun(id=job_id) for job_id in session.scalars(unfinished).all())
    models = (
        select(ModelVersion.model_id)
        .where(ModelVersion.model_id.not_in(select(MlflowModelChange.model_id)))
        .distinct()
    )
    session.add_all(
        MlflowModelChange(model_id=model_id) for model_id in session.scalars(models).all()
    )


def find_server(session: Session) -> MlflowServer | None:
    """Return the server that workers send to."""
    return session.get(MlflowServer, MLFLOW_SERVER_ID)


def has_due_work(session: Session) -> bool:
    """Return whether there is something to send, or the connection to check."""
    to_check = or_(
        MlflowServer.last_success_at.is_(None),
        MlflowServer.last_success_at < now() - CHECK_SECONDS,
    )
    to_send = or_(_due_runs().exists(), _due_changes().exists())
    return (
        session.scalar(select(MlflowServer.id).where(_IS_FREE, or_(to_check, to_send))) is not None
    )


def claim_server(session: Session, connection: MlflowConnection) -> ServerClaim | None:
    """Take the lease. None: another worker has it, or started later with other settings."""
    row = session.execute(
        update(MlflowServer)
        .where(
            _IS_FREE,
            MlflowServer.tracking_uri == connection.tracking_uri,
            MlflowServer.experiment == connection.experiment,
        )
        .values(
            attempts=MlflowServer.attempts + 1,
            lease_expires_at=now() + LEASE_SECONDS,
            seen_at=now(),
        )
        .returning(MlflowServer.attempts, MlflowServer.failures),
        execution_options=NO_SESSION_SYNC,
    ).one_or_none()
    return None if row is None else ServerClaim(*row)


def renew_lease_and_update_server(session: Session, attempt: int, **values: Any) -> None:
    """Renew the lease, and change columns of the server. Raises `MlflowLeaseLost`."""
    renewed = session.scalar(
        update(MlflowServer)
        .where(MlflowServer.id == MLFLOW_SERVER_ID, MlflowServer.attempts == attempt)
        .values({"lease_expires_at": now() + LEASE_SECONDS, "seen_at": now(), **values})
        .returning(MlflowServer.id),
        execution_options=NO_SESSION_SYNC,
    )
    if renewed is None:
        raise MlflowLeaseLost


def renew_lease_after_success(session: Session, attempt: int) -> None:
    """Renew the lease, and record that MLflow answered. Raises `MlflowLeaseLost`."""
    renew_lease_and_update_server(session, attempt, failures=0, last_success_at=now())


def release_server_and_record_outcome(
    session: Session, attempt: int, error: MlflowError | None
) -> None:
    """End the lease, and record how the attempt ended. Raises `MlflowLeaseLost`.

    After an error, the next attempt waits, twice as long each time.
    """
    values: dict[str, Any] = {"failures": 0, "last_success_at": now(), "next_attempt_at": now()}
    if error is not None:
        delay = backoff_expression(
            FIRST_RETRY_SECONDS, MlflowServer.failures, max_seconds=MAX_RETRY_SECONDS
        )
        values = {
            "failures": MlflowServer.failures + 1,
            "next_attempt_at": now() + delay,
            "last_error_code": error.code,
            "last_error": str(error),
            "last_error_at": now(),
        }
    renew_lease_and_update_server(session, attempt, lease_expires_at=null(), **values)


def make_waiting_rows_due(session: Session) -> None:
    """Make everything due now that waits: after a clock step it might wait for hours."""
    session.execute(
        update(MlflowServer)
        .where(MlflowServer.lease_expires_at > now() + LEASE_SECONDS)
        .values(lease_expires_at=null()),
        execution_options=NO_SESSION_SYNC,
    )
    for table in (MlflowServer, MlflowRun, MlflowModel):
        session.execute(
            update(table).where(table.next_attempt_at > now()).values(next_attempt_at=now()),
            execution_options=NO_SESSION_SYNC,
        )


def count_backlog(session: Session) -> Backlog:
    """Count the runs and models of which something is not sent."""
    runs = select(func.count()).select_from(_unsent_runs().subquery())
    models = select(func.count(MlflowModelChange.model_id.distinct()))
    failed = select(func.count()).where(MlflowRun.state == MlflowSyncState.FAILED)
    return Backlog(*(session.scalars(each).one() for each in (runs, models, failed)))


def _reset_for_another_server(session: Session) -> None:
    """Forget what the last server has, and have sent again the jobs whose end it has not.

    The run of a sweep is added again with its first job.
    """
    unsent = and_(MlflowRun.state != MlflowSyncState.SENT, MlflowRun.id.in_(select(Job.id)))
    pending: Mapping[str, Any] = {
        "state": MlflowSyncState.PENDING,
        "failures": 0,
        "next_attempt_at": now(),
        "last_error": None,
    }
    for statement in (
        delete(MlflowRun).where(~unsent),
        update(MlflowRun).values({**UNSENT_RUN, **pending}),
        delete(MlflowModel),
    ):
        session.execute(statement, execution_options=NO_SESSION_SYNC)


# Runs


def list_due_runs(session: Session, *, after: UUID | None, limit: int) -> Sequence[MlflowRun]:
    """Return runs of which something is due, in the order in which their jobs were created."""
    statement = _due_runs().order_by(MlflowRun.id).limit(limit)
    if after is not None:
        statement = statement.where(MlflowRun.id > after)
    return session.scalars(statement).all()


def find_sent_run(session: Session, job_id: UUID) -> MlflowRun | None:
    """Return what MLflow has of a job or a sweep."""
    return session.get(MlflowRun, job_id)


def list_mlflow_runs(session: Session, job_ids: Collection[UUID]) -> Sequence[MlflowRun]:
    """Return what MLflow has of these jobs or sweeps."""
    return session.scalars(select(MlflowRun).where(MlflowRun.id.in_(job_ids))).all()


def list_metric_points(
    session: Session, job_id: UUID, *, after: int, limit: int
) -> Sequence[MetricPoint]:
    """Return metric points by sequence number."""
    statement = select(MetricPoint).where(MetricPoint.job_id == job_id, MetricPoint.seq > after)
    return session.scalars(statement.order_by(MetricPoint.seq).limit(limit)).all()


def list_dataset_digests(session: Session, job: Job) -> Sequence[str]:
    """Return the sha256 of the uploads that a job reads, sorted."""
    ids = {UUID(each) for each in job.dataset_ids.values()}
    statement = select(Dataset.sha256).where(Dataset.id.in_(ids)).distinct()
    return session.scalars(statement.order_by(Dataset.sha256)).all()


# Models


def list_due_model_ids(session: Session) -> Sequence[UUID]:
    """Return the models with changes that are due, by id."""
    changes = _due_changes().distinct().order_by(MlflowModelChange.model_id)
    return session.scalars(changes).all()


def find_sent_model(session: Session, model_id: UUID) -> MlflowModel | None:
    """Return what MLflow has of a model."""
    return session.get(MlflowModel, model_id)


def list_unsent_change_ids(session: Session, model_id: UUID) -> Sequence[UUID]:
    """Return the ids of the changes of a model that are not sent."""
    changes = select(MlflowModelChange.id).where(MlflowModelChange.model_id == model_id)
    return session.scalars(changes).all()


def delete_outbox_changes(session: Session, changes: Sequence[UUID]) -> None:
    """Delete changes that were sent or given up."""
    session.execute(
        delete(MlflowModelChange).where(MlflowModelChange.id.in_(changes)),
        execution_options=NO_SESSION_SYNC,
    )


# Conditions


_IS_FREE = and_(
    MlflowServer.id == MLFLOW_SERVER_ID,
    MlflowServer.next_attempt_at <= now(),
    or_(MlflowServer.lease_expires_at.is_(None), MlflowServer.lease_expires_at < now()),
)
_SWEEP_STATUS = case(dict(SWEEP_STATUSES), value=Sweep.state)


def _unsent_runs() -> Select[MlflowRun]:
    """Select the runs of which something is not sent.

    A job has a run once it has started or ended; each change of it increments `stream_seq`.
    """
    unsent = or_(
        Job.finished_at.is_not(None),
        and_(Job.started_at.is_not(None), Job.stream_seq > MlflowRun.seq),
        and_(Sweep.id.is_not(None), MlflowRun.status.is_distinct_from(_SWEEP_STATUS)),
        and_(Job.id.is_(None), Sweep.id.is_(None)),  # deleted
    )
    return (
        select(MlflowRun)
        .outerjoin(Job, Job.id == MlflowRun.id)
        .outerjoin(Sweep, Sweep.id == MlflowRun.id)
        .where(MlflowRun.state == MlflowSyncState.PENDING, unsent)
    )


def _due_runs() -> Select[MlflowRun]:
    return _unsent_runs().where(MlflowRun.next_attempt_at <= now())


def _due_changes() -> Select[UUID]:
    """Select the model of each change that is due."""
    return (
        select(MlflowModelChange.model_id)
        .outerjoin(MlflowModel, MlflowModel.model_id == MlflowModelChange.model_id)
        .where(or_(MlflowModel.model_id.is_(None), MlflowModel.next_attempt_at <= now()))
    )
