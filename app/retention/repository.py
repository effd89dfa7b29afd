"""Queries of garbage collection: the keys to which rows refer, curves, and stored responses.

The rules for rows that expire are in `app.retention.expiry`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, text, tuple_, update
from sqlalchemy.orm import InstrumentedAttribute, Session, load_only

from app.auth.tables import LOCAL_KEY_ID, ApiKey
from app.database.base import now
from app.datasets import files
from app.datasets.tables import Dataset
from app.idempotency.tables import IdempotencyKey
from app.label_review.tables import StoredSuspects
from app.outbox.enums import MlflowSyncState
from app.outbox.tables import MlflowModel, MlflowModelChange, MlflowRun, MlflowServer
from app.queue.enums import JobState
from app.queue.fencing import NO_SESSION_SYNC
from app.queue.tables import Checkpoint, Job, MetricPoint
from app.storage.tables import Artifact
from app.sweeps.tables import Sweep

_STREAM_SECONDS = 5.0  # from the end of a job until every event stream has sent its last points
MLFLOW_SILENT_SECONDS = 30 * 86_400.0  # without a worker that sends, the outbox is emptied
SUSPECTS_SECONDS = 30 * 86_400.0  # then reports on suspect labels are deleted
# Estimates, measured on SQLite, with indexes.
POINT_BYTES = 200
RESPONSE_BYTES = 3_000
PREDICTION_BYTES = 900
FEEDBACK_BYTES = 1_000
COUNT_BYTES = 150
DRIFT_CHECK_BYTES = 700
PAGE_SIZE = 500  # rows per query
BATCH_SIZE = 25  # rows that one transaction deletes
_SIZE_QUERIES = {
    "sqlite": "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
    "postgresql": "SELECT pg_database_size(current_database())",
}


def get_database_identity(session: Session) -> str:
    """Return a unique name of the database, from its creation time to the microsecond."""
    created_at: float = session.scalars(
        select(ApiKey.created_at).where(ApiKey.id == LOCAL_KEY_ID)
    ).one()
    return f"database of {created_at!r}"


def list_running_attempts(session: Session) -> frozenset[tuple[UUID, int]]:
    """Return the attempts that may still add rows, as (job id, attempt number)."""
    rows = session.execute(select(Job.id, Job.attempt).where(Job.state == JobState.RUNNING))
    return frozenset((row.id, row.attempt) for row in rows)


def list_artifact_keys_page(
    session: Session, after: UUID | None
) -> tuple[Sequence[str], UUID | None]:
    """Return the keys of one page, and the id of its last row, or None after the last page."""
    id_range = next_id_range(session, Artifact.id, after)
    return session.scalars(
        select(Artifact.key).where(*id_range.conditions(Artifact.id))
    ).all(), id_range.last


def list_checkpoint_keys_page(
    session: Session, after: UUID | None
) -> tuple[Sequence[str], UUID | None]:
    """Like `list_artifact_keys_page`, for checkpoints."""
    id_range = next_id_range(session, Checkpoint.job_id, after)
    keys = select(Checkpoint.key).where(*id_range.conditions(Checkpoint.job_id))
    return session.scalars(keys).all(), id_range.last


def list_dataset_keys_page(
    session: Session, after: UUID | None
) -> tuple[Sequence[str], UUID | None]:
    """Like `list_artifact_keys_page`, for datasets that were not deleted."""
    id_range = next_id_range(session, Dataset.id, after)
    uploads = select(Dataset).options(load_only(Dataset.id, Dataset.suffix))
    found = session.scalars(
        uploads.where(*id_range.conditions(Dataset.id), Dataset.deleted_at.is_(None))
    )
    return [files.store_key(upload) for upload in found], id_range.last


def list_dataset_ids(session: Session) -> frozenset[str]:
    """Return the ids of the datasets that were not deleted."""
    ids = session.scalars(select(Dataset.id).where(Dataset.deleted_at.is_(None)))
    return frozenset(str(each) for each in ids)


# -- Curves of ended jobs: see `app.retention.curve_thinning` -------------------------------------


class CurvePoint(NamedTuple):
    """A metric point. The value is None if it is not finite."""

    seq: int
    step: int
    value: float | None


class UnthinnedJob(NamedTuple):
    """An ended job whose curves have not been thinned."""

    id: UUID
    state: JobState


Curves = dict[tuple[str, str], list[CurvePoint]]  # by split and name; points by step


def list_unthinned_jobs(session: Session, *, after: UUID | None, limit: int) -> list[UnthinnedJob]:
    """Return ended jobs whose curves have not been thinned, by id.

    A job that can be retried is left out, because the retry copies its curves.
    """
    has_checkpoint = select(Checkpoint.job_id).where(Checkpoint.job_id == Job.id).exists()
    statement = (
        select(Job.id, Job.state)
        .where(Job.thinned_at.is_(None), Job.finished_at < now() - _STREAM_SECONDS)
        .where(or_(Job.state == JobState.SUCCEEDED, ~has_checkpoint))
        .order_by(Job.id)
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(Job.id > after)
    return [UnthinnedJob(job.id, JobState(job.state)) for job in session.execute(statement)]


def read_curves(session: Session, job_id: UUID) -> Curves:
    """Return the curves of a job."""
    point = (MetricPoint.seq, MetricPoint.step, MetricPoint.value)
    rows = session.execute(
        select(MetricPoint.split, MetricPoint.name, *point)
        .where(MetricPoint.job_id == job_id)
        .order_by(MetricPoint.split, MetricPoint.name, MetricPoint.step)
    )
    curves: Curves = {}
    for split, name, seq, step, value in rows:
        curves.setdefault((split, name), []).append(CurvePoint(seq, step, value))
    return curves


def delete_metric_points(session: Session, job_id: UUID, numbers: Sequence[int]) -> None:
    """Delete the points with these sequence numbers."""
    points = (MetricPoint.job_id == job_id, MetricPoint.seq.in_(numbers))
    session.execute(delete(MetricPoint).where(*points), execution_options=NO_SESSION_SYNC)


def mark_thinned(session: Session, job_ids: Sequence[UUID]) -> None:
    """Record that the curves of these jobs have been thinned."""
    session.execute(
        update(Job).where(Job.id.in_(job_ids)).values(thinned_at=now()),
        execution_options=NO_SESSION_SYNC,
    )


# -- The outbox of MLflow ------------------------------------------------------------------------


def delete_stale_mlflow_server(session: Session) -> None:
    """Delete the server, and the models sent to it, if no worker has had its setting for long."""
    silent = MlflowServer.seen_at < now() - MLFLOW_SILENT_SECONDS
    deleted = session.scalars(
        delete(MlflowServer).where(silent).returning(MlflowServer.id),
        execution_options=NO_SESSION_SYNC,
    ).first()
    if deleted is not None:
        for table in (MlflowModel, MlflowModelChange):
            session.execute(delete(table), execution_options=NO_SESSION_SYNC)


def list_unneeded_mlflow_runs(session: Session) -> Sequence[UUID]:
    """Return one batch of runs without a server, and of those that ended with a deleted job."""
    deleted = and_(
        MlflowRun.state != MlflowSyncState.PENDING,
        ~select(Job.id).where(Job.id == MlflowRun.id).exists(),
        ~select(Sweep.id).where(Sweep.id == MlflowRun.id).exists(),
    )
    without_server = ~select(MlflowServer.id).exists()
    statement = select(MlflowRun.id).where(or_(without_server, deleted)).limit(PAGE_SIZE)
    return session.scalars(statement).all()


def delete_mlflow_run_rows(session: Session, ids: Sequence[UUID]) -> None:
    """Delete what is known of these runs, not the runs in MLflow."""
    session.execute(
        delete(MlflowRun).where(MlflowRun.id.in_(ids)), execution_options=NO_SESSION_SYNC
    )


def list_datasets_with_old_suspect_label_reports(session: Session) -> Sequence[UUID]:
    """Return datasets of one batch of old reports on suspect labels, which can be made again."""
    old = StoredSuspects.created_at < now() - SUSPECTS_SECONDS
    statement = select(StoredSuspects.dataset_id).where(old).distinct().limit(BATCH_SIZE)
    return session.scalars(statement).all()


def delete_suspect_label_reports(session: Session, dataset_ids: Sequence[UUID]) -> None:
    """Delete the reports on suspect labels of datasets."""
    session.execute(
        delete(StoredSuspects).where(StoredSuspects.dataset_id.in_(dataset_ids)),
        execution_options=NO_SESSION_SYNC,
    )


# -- Responses of an `Idempotency-Key`, and the database itself -----------------------------------


def count_expired_idempotency_keys(session: Session, *, seconds: float) -> int:
    """Count the responses of an `Idempotency-Key` that are older than `seconds`."""
    old = IdempotencyKey.created_at < now() - seconds
    return session.scalars(select(func.count()).select_from(IdempotencyKey).where(old)).one()


def delete_expired_idempotency_key_batch(session: Session, *, seconds: float) -> int:
    """Delete one batch of them. Return the count, which is 0 if there are none left."""
    key = tuple_(IdempotencyKey.api_key_id, IdempotencyKey.route, IdempotencyKey.key)
    batch = (
        select(IdempotencyKey.api_key_id, IdempotencyKey.route, IdempotencyKey.key)
        .where(IdempotencyKey.created_at < now() - seconds)
        .order_by(IdempotencyKey.created_at)
        .limit(BATCH_SIZE)
    )
    deleted = session.scalars(
        delete(IdempotencyKey).where(key.in_(batch)).returning(IdempotencyKey.key),
        execution_options=NO_SESSION_SYNC,
    )
    return len(deleted.all())


def database_bytes(session: Session) -> int:
    """Return the size of the database."""
    size: int = session.execute(text(_SIZE_QUERIES[session.get_bind().dialect.name])).scalar_one()
    return size


class IdRange(NamedTuple):
    """A range of ids: greater than `after`, up to `last`. None means without that bound.

    Apply it to both sides of a join, or a query planner may read all rows of the other side.
    """

    after: UUID | None
    last: UUID | None

    def conditions(self, *columns: InstrumentedAttribute[Any]) -> list[ColumnElement[bool]]:
        after = [column > self.after for column in columns] if self.after else []
        return after + ([column <= self.last for column in columns] if self.last else [])


def next_id_range(
    session: Session,
    key: InstrumentedAttribute[UUID],
    after: UUID | None,
    *conditions: ColumnElement[bool],
) -> IdRange:
    """Return the range of the next `PAGE_SIZE` ids in this column, of rows that match."""
    keys = select(key).where(*IdRange(after, None).conditions(key), *conditions).order_by(key)
    return IdRange(after, session.scalars(keys.offset(PAGE_SIZE - 1).limit(1)).one_or_none())
