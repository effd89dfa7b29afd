"""The points from which a job can go on. Written under a lease, like all that a worker writes.

Each keeps the number of the event that told it. A resume begins there: what the curves got after
that number is forgotten, because the run tells it again.
"""

from uuid import UUID

from sqlalchemy import Select, delete, insert, literal, or_, select, update
from sqlalchemy.orm import Session

from app.queue.fencing import UNSYNCED, Lease, Rewound, StoredCheckpoint, append, held
from app.queue.tables import Checkpoint, Job, MetricPoint
from app.queue.transitions import NOT_WAITING, Told
from app.storage.store import ArtifactRef

KEPT = 2  # the newest, and the one before in case the newest turns out to be bad
INHERITED = 0  # the attempt of points that come from the job that is continued


def add(session: Session, lease: Lease, *, step: int, ref: ArtifactRef, seq: int) -> list[str]:
    """Make a stored checkpoint count, in the transaction of the beat that reserved `seq`.

    Returns the keys of the older ones, which the caller deletes after its commit. A run that got
    this far begins to count its failures anew, and waits for nothing any more.
    """
    session.execute(
        update(Job).where(*held(lease)).values(failures_counted=0, **NOT_WAITING),
        execution_options=UNSYNCED,
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
    good = _good(lease.job_id).order_by(Checkpoint.seq.desc()).offset(KEPT)
    stale = session.scalars(good.execution_options(populate_existing=True)).all()
    for checkpoint in stale:
        session.delete(checkpoint)
    return [checkpoint.key for checkpoint in stale]


def inherit(session: Session, job: Job, start: Checkpoint) -> None:
    """Begin the curves of a new job as those of the job that it continues, up to `start`.

    The points keep their numbers, so the job's own numbers begin after them.
    """
    copied = [each for each in MetricPoint.__table__.c if each.name not in ("job_id", "attempt")]
    points = select(literal(job.id, MetricPoint.job_id.type), literal(INHERITED), *copied)
    before = (MetricPoint.job_id == start.job_id, MetricPoint.seq <= start.seq)
    names = ["job_id", "attempt", *(each.name for each in copied)]
    session.execute(insert(MetricPoint).from_select(names, points.where(*before)))


def rewind(session: Session, job_id: UUID) -> StoredCheckpoint | None:
    """Go back to the newest good checkpoint, the job's own or else that of the job which it
    continues: what the curves got after it is gone. None: to the beginning.
    """
    newest = last(session, job_id)
    if newest is not None:
        told_since = MetricPoint.seq > newest.seq
    else:
        continued = session.scalars(select(Job.continues).where(Job.id == job_id)).one()
        newest = last(session, continued) if continued else None
        inherited_until = newest.seq if newest else 0
        told_since = or_(MetricPoint.attempt > INHERITED, MetricPoint.seq > inherited_until)
    session.execute(
        delete(MetricPoint).where(MetricPoint.job_id == job_id, told_since),
        execution_options=UNSYNCED,
    )
    if newest is None:
        return None
    ref = ArtifactRef(newest.key, newest.manifest_sha256, newest.bytes)
    return StoredCheckpoint(newest.job_id, newest.attempt, newest.step, ref)


def reject(
    session: Session, lease: Lease, checkpoint: StoredCheckpoint, problem: str
) -> Rewound | None:
    """Never use this one again; go back to the one before. `None`: fenced."""
    row = session.execute(
        update(Job)
        .where(*held(lease))
        .values(stream_seq=Job.stream_seq + 1)
        .returning(Job.id, Job.attempt, Job.stream_seq),
        execution_options=UNSYNCED,
    ).one_or_none()
    if row is None:
        return None
    session.execute(
        update(Checkpoint)
        .where(
            Checkpoint.job_id == checkpoint.job_id,
            Checkpoint.attempt == checkpoint.attempt,
            Checkpoint.step == checkpoint.step,
        )
        .values(bad=True),
        execution_options=UNSYNCED,
    )
    previous = rewind(session, lease.job_id)
    onward = f"step {previous.step:,}" if previous else "the beginning"
    message = (
        f"The checkpoint of step {checkpoint.step:,} is damaged or gone; going on from {onward}."
    )
    data = {"step": checkpoint.step, "problem": problem}
    append(session, row, Told("checkpoint_rejected", "warning", message, data))
    session.execute(
        update(Job).where(*held(lease)).values(step=previous.step if previous else 0),
        execution_options=UNSYNCED,
    )
    return Rewound(previous)


def last(session: Session, job_id: UUID) -> Checkpoint | None:
    """The newest good one of a job."""
    statement = _good(job_id).order_by(Checkpoint.seq.desc()).limit(1)
    return session.scalars(statement).one_or_none()


def _good(job_id: UUID) -> Select[Checkpoint]:
    return select(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.bad.is_(False))
