"""Checkpoints that a job can resume from. Written under a lease, like all that a worker writes.

Each checkpoint stores the sequence number of its event. A resumed run starts there: metric points
with a higher number are deleted, because the run reports them again.
"""

from uuid import UUID

from sqlalchemy import Select, delete, insert, literal, or_, select, update
from sqlalchemy.orm import Session

from app.queue.events import EventContent, add_job_event
from app.queue.fencing import (
    NO_SESSION_SYNC,
    Lease,
    LeaseLost,
    StoredCheckpoint,
    fencing_conditions,
)
from app.queue.tables import Attempt, Checkpoint, Job, MetricPoint
from app.queue.transitions import CLEARED_WAIT
from app.storage.store import ArtifactRef

MAX_CHECKPOINTS = 2  # the newest, and the one before in case the newest is damaged
INHERITED_ATTEMPT = 0  # attempt number of points copied from the job that is continued


def record_and_rotate_checkpoints(
    session: Session, lease: Lease, *, step: int, ref: ArtifactRef, seq: int
) -> list[str]:
    """Record a stored checkpoint, in the transaction of the renewal that reserved `seq`.

    This resets the failure count and ends any wait of the job. Returns the store keys of the
    checkpoints it replaces, which the caller deletes after its commit.
    """
    session.execute(
        update(Job).where(*fencing_conditions(lease)).values(failures_counted=0, **CLEARED_WAIT),
        execution_options=NO_SESSION_SYNC,
    )
    session.add(
        Checkpoint(
            job_id=lease.job_id,
            attempt=lease.attempt,
            step=step,
            seq=seq,
            key=ref.key,
            manifest_sha256=ref.manifest_sha256,
            bytes=ref.bytes,
        )
    )
    session.flush()
    replaced = _select_usable(lease.job_id).order_by(Checkpoint.seq.desc()).offset(MAX_CHECKPOINTS)
    stale = session.scalars(replaced.execution_options(populate_existing=True)).all()
    for checkpoint in stale:
        session.delete(checkpoint)
    return [checkpoint.key for checkpoint in stale]


def inherit_metric_points(session: Session, job: Job, start: Checkpoint) -> None:
    """Copy the metric points up to `start` from the job that the new job continues.

    The points keep their sequence numbers, so the job's own numbers begin after them.
    """
    copied = [
        column for column in MetricPoint.__table__.c if column.name not in ("job_id", "attempt")
    ]
    points = select(literal(job.id, MetricPoint.job_id.type), literal(INHERITED_ATTEMPT), *copied)
    before = (MetricPoint.job_id == start.job_id, MetricPoint.seq <= start.seq)
    names = ["job_id", "attempt", *(column.name for column in copied)]
    session.execute(insert(MetricPoint).from_select(names, points.where(*before)))


def rewind_metrics_to_newest_checkpoint(session: Session, job_id: UUID) -> StoredCheckpoint | None:
    """Return the newest usable checkpoint and delete the metric points after it.

    It is the job's own, or else that of the job it continues. None: start from the beginning.
    """
    newest = find_newest_usable_checkpoint(session, job_id)
    if newest is not None:
        later = MetricPoint.seq > newest.seq
    else:
        continued = session.scalars(select(Job.continues).where(Job.id == job_id)).one()
        newest = find_newest_usable_checkpoint(session, continued) if continued else None
        inherited_until = newest.seq if newest else 0
        later = or_(MetricPoint.attempt > INHERITED_ATTEMPT, MetricPoint.seq > inherited_until)
    session.execute(
        delete(MetricPoint).where(MetricPoint.job_id == job_id, later),
        execution_options=NO_SESSION_SYNC,
    )
    if newest is None:
        return None
    ref = ArtifactRef(newest.key, newest.manifest_sha256, newest.bytes)
    return StoredCheckpoint(newest.job_id, newest.attempt, newest.step, ref)


def reject_checkpoint_and_rewind(
    session: Session, lease: Lease, checkpoint: StoredCheckpoint, problem: str
) -> StoredCheckpoint | None:
    """Mark a checkpoint as bad and rewind to the one before it, or to the beginning (None).

    Raises `LeaseLost`.
    """
    row = session.execute(
        update(Job)
        .where(*fencing_conditions(lease))
        .values(stream_seq=Job.stream_seq + 1)
        .returning(Job.id, Job.attempt, Job.stream_seq),
        execution_options=NO_SESSION_SYNC,
    ).one_or_none()
    if row is None:
        raise LeaseLost
    session.execute(
        update(Checkpoint)
        .where(
            Checkpoint.job_id == checkpoint.job_id,
            Checkpoint.attempt == checkpoint.attempt,
            Checkpoint.step == checkpoint.step,
        )
        .values(bad=True),
        execution_options=NO_SESSION_SYNC,
    )
    previous = rewind_metrics_to_newest_checkpoint(session, lease.job_id)
    resumed_from = f"step {previous.step:,}" if previous else "the beginning"
    message = (
        f"The checkpoint of step {checkpoint.step:,} cannot be used ({problem}); "
        f"resuming from {resumed_from}."
    )
    data = {"step": checkpoint.step, "problem": problem}
    add_job_event(session, row, EventContent("checkpoint_rejected", "warning", message, data))
    step = previous.step if previous else 0
    for statement in (
        update(Job).where(*fencing_conditions(lease)).values(step=step),
        update(Attempt)
        .where(Attempt.job_id == row.id, Attempt.attempt == row.attempt)
        .values(first_step=step),
    ):
        session.execute(statement, execution_options=NO_SESSION_SYNC)
    return previous


def find_newest_usable_checkpoint(session: Session, job_id: UUID) -> Checkpoint | None:
    """Return the newest usable checkpoint of a job."""
    statement = _select_usable(job_id).order_by(Checkpoint.seq.desc()).limit(1)
    return session.scalars(statement).one_or_none()


def _select_usable(job_id: UUID) -> Select[Checkpoint]:
    return select(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.bad.is_(False))
