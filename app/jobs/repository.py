"""Rows of jobs, their events and their metric points, as the service reads and writes them.

Whoever asks by id or for a list gets one kind of row; the queue is one for both.

What a worker writes is in `ownership`.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, String, and_, case, cast, delete, func, or_, select, update
from sqlalchemy.orm import Session, defer, load_only

from app.database.base import JsonObject
from app.database.clock import now
from app.jobs.errors import JobNotFinished, JobNotFound
from app.jobs.figures import PARTS, Figures
from app.jobs.tags import stored
from app.queue.fencing import UNSYNCED, append
from app.queue.states import JobState, Kind, Lane
from app.queue.tables import Job, JobEvent, MetricPoint
from app.queue.transitions import Told

FINAL = tuple(state for state in JobState if state.final)
UNENDED = tuple(state for state in JobState if not state.final)
SEARCHED = 10_000  # jobs that one call looks through for what no index leads to
COUNTED = 10_000  # jobs of one state that a call counts
_STANDING = load_only(
    Job.kind,
    Job.state,
    Job.attempt,
    Job.step,
    Job.total_steps,
    Job.cancel_requested_at,
    Job.stream_seq,
)


@dataclass(frozen=True)
class Filter:
    """Which jobs a list is about."""

    state: JobState | None = None
    method: str | None = None
    search: str | None = None  # stands in the name, the base or the data
    tag: str | None = None
    cells: bool = True  # those that sweeps made, too
    dataset: UUID | None = None  # an upload that they read


class Listed(NamedTuple):
    """Jobs of one page, and the id after which the next one goes on; None: there is no more."""

    jobs: Sequence[Job]
    last: UUID | None


def get(session: Session, job_id: UUID) -> Job:
    """Raises `JobNotFound`."""
    job = find(session, job_id, kind=Kind.TRAINING)
    if job is None:
        raise JobNotFound(job_id=job_id)
    return job


def find(session: Session, job_id: UUID, *, kind: Kind) -> Job | None:
    """The row of that kind."""
    job = session.get(Job, job_id)
    return job if job is not None and job.kind == kind else None


def standing(session: Session, job_ids: Collection[UUID]) -> dict[UUID, Job]:
    """Those of these jobs that are there, with what a `StateView` needs; the rest is loaded when
    it is asked for."""
    statement = select(Job).where(Job.id.in_(job_ids), Job.kind == Kind.TRAINING)
    return {job.id: job for job in session.scalars(statement.options(_STANDING))}


def page(
    session: Session,
    *,
    after: UUID | None,
    limit: int,
    kind: Kind = Kind.TRAINING,
    only: Filter = Filter(),
) -> Listed:
    """The newest first, without what grows with the labels: summaries and details of errors.

    An index leads to all that a filter may ask for, but for `search` and `dataset`, and for `tag`
    to the jobs that have any: those look through `SEARCHED` jobs at a time, so a page of them may
    have few jobs or none and yet a next.
    """
    statement = select(Job).options(*_GROWING).where(Job.kind == kind).order_by(Job.id.desc())
    if after is not None:
        statement = statement.where(Job.id < after)
    if only.state is not None:
        statement = statement.where(Job.state == only.state)
    if only.method is not None:
        statement = statement.where(Job.method == only.method)
    if not only.cells:
        statement = statement.where(Job.sweep_id.is_(None))
    if only.tag is not None:
        statement = statement.where(Job.tags.is_not(None))
    last = None
    if conditions := list(_found_by_reading(only)):
        window = statement.with_only_columns(Job.id).offset(SEARCHED - 1).limit(1)
        last = session.scalars(window).first()
        statement = statement.where(*conditions)
        if last is not None:
            statement = statement.where(Job.id >= last)
    jobs = session.scalars(statement.limit(limit + 1)).all()
    if len(jobs) > limit:
        last = jobs[limit - 1].id
    return Listed(jobs[:limit], last)


def figures(session: Session, job_ids: Collection[UUID]) -> dict[UUID, Figures]:
    """Those of jobs: the database takes them out of summaries, which grow with the labels."""
    accuracies = (Job.summary[(part, "accuracy")].as_float() for part in PARTS)
    rows = session.execute(
        select(
            Job.id,
            func.coalesce(*accuracies),
            Job.summary["trainable_parameters"].as_integer(),
            Job.summary["total_parameters"].as_integer(),
            Job.summary["model_version"].as_string(),
        ).where(Job.id.in_(job_ids))
    )
    return {job_id: Figures(*found) for job_id, *found in rows}


_GROWING = tuple(defer(each, raiseload=True) for each in (Job.summary, Job.error_detail, Job.notes))


def _found_by_reading(only: Filter) -> Iterator[ColumnElement[bool]]:
    if only.search is not None:
        yield _mentions(only.search)
    if only.tag is not None:
        yield cast(Job.tags, String).contains(stored(only.tag), autoescape=True)
    if only.dataset is not None:
        yield cast(Job.dataset_ids, String).contains(str(only.dataset))


def _mentions(text: str) -> ColumnElement[bool]:
    source = cast(Job.spec["data"]["source"], String)  # a name, or one for each part
    return or_(*(each.icontains(text, autoescape=True) for each in (Job.name, Job.base, source)))


def counts(session: Session, *, cells: bool = True) -> dict[JobState, int]:
    """How many jobs there are in each state that has some, `COUNTED` + 1 standing for more than
    `COUNTED`; `cells`: those of sweeps, too.
    """
    found = {}
    for state in JobState:
        some = select(Job.id).where(Job.kind == Kind.TRAINING, Job.state == state)
        if not cells:
            some = some.where(Job.sweep_id.is_(None))
        number = select(func.count()).select_from(some.limit(COUNTED + 1).subquery())
        found[state] = session.scalars(number).one()
    return {state: number for state, number in found.items() if number}


def positions(session: Session, job_ids: Collection[UUID]) -> dict[UUID, int]:
    """Places in the queue, 1 is next, of those that are queued: behind all who want its device.

    In the order of claims; those that are not due yet stand behind all that are.
    """
    waits = case((Job.run_after > now().select().scalar_subquery(), 1), else_=0)
    order = (waits, Job.priority.desc(), Job.created_at, Job.id)
    place = case(*((Job.lane == lane, _counted(lane, order)) for lane in Lane)).label("place")
    queue = select(Job.id, place).where(Job.state == JobState.QUEUED).subquery()
    found = session.execute(select(queue.c.id, queue.c.place).where(queue.c.id.in_(job_ids)))
    return {row.id: row.place for row in found}


def next_position(session: Session, *, lane: Lane, priority: int) -> int:
    """The place that a job would get now: it is due, and the youngest of its priority."""
    moment = now().select().scalar_subquery()  # which SQLite would compute for each row
    due = (Job.state == JobState.QUEUED, Job.run_after <= moment)
    before = (Job.lane.in_(_rivals(lane)), Job.priority >= priority)
    return 1 + session.scalars(select(func.count()).select_from(Job).where(*due, *before)).one()


def _counted(lane: Lane, order: tuple[Any, ...]) -> Any:
    """Jobs that a job of `lane` competes with, up to this row of the queue."""
    one = case((Job.lane.in_(_rivals(lane)), 1), else_=0)
    return func.sum(one).over(order_by=order, rows=(None, 0))


def _rivals(lane: Lane) -> tuple[Lane, ...]:
    """Lanes whose jobs may take the same device."""
    return tuple(Lane) if lane is Lane.ANY else (lane, Lane.ANY)


def finished(
    session: Session, *, lane: Lane, limit: int
) -> Sequence[tuple[JsonObject, JsonObject]]:
    """Plan and summary of the jobs that succeeded last."""
    statement = (
        select(Job.plan, Job.summary, Job.finished_at)
        .where(Job.kind == Kind.TRAINING, Job.state == JobState.SUCCEEDED)
        .order_by(Job.finished_at.desc())
        .limit(limit)
    )
    rows = [  # one lane at a time, in each of which the index has them in order
        row for each in _rivals(lane) for row in session.execute(statement.where(Job.lane == each))
    ]
    rows.sort(key=lambda row: row.finished_at, reverse=True)
    return [(row.plan, row.summary or {}) for row in rows[:limit]]


def unfinished(session: Session, caller_id: UUID) -> int:
    """Jobs and prediction runs of this caller that have not ended."""
    mine = and_(Job.created_by == caller_id, Job.state.in_(UNENDED))
    return session.scalars(select(func.count()).select_from(Job).where(mine)).one()


def continued_by(session: Session, job_id: UUID) -> UUID | None:
    """A job that continues this one and has not ended."""
    live = select(Job.id).where(Job.continues == job_id, Job.state.in_(UNENDED))
    return session.scalars(live.limit(1)).first()


def add(session: Session, job: Job) -> None:
    """Insert a job with its first event. One that continues another may bring numbers with it."""
    job.stream_seq = (job.stream_seq or 0) + 1
    session.add(job)
    session.flush()
    append(session, job, Told("queued", "info", "The job was queued.", {}))


def update_columns(session: Session, job_id: UUID, values: Mapping[str, Any]) -> Job:
    """Set what no worker writes; one UPDATE, since the job may just be deleted.

    Raises `JobNotFound`.
    """
    if values:
        mine = (Job.id == job_id, Job.kind == Kind.TRAINING)
        session.execute(update(Job).where(*mine).values(values), execution_options=UNSYNCED)
    return get(session, job_id)


def request_cancel(session: Session, job_id: UUID) -> None:
    """Cancel a queued job, ask a running one to stop, leave any other as it is.

    One UPDATE, so that whatever a worker does at the same time comes before or after it.
    """
    queued = Job.state == JobState.QUEUED
    unasked = and_(Job.state == JobState.RUNNING, Job.cancel_requested_at.is_(None))
    row = session.execute(
        update(Job)
        .where(Job.id == job_id, or_(queued, unasked))
        .values(
            state=case((queued, JobState.CANCELLED), else_=Job.state),
            finished_at=case((queued, now()), else_=Job.finished_at),
            cancel_requested_at=func.coalesce(Job.cancel_requested_at, now()),
            stream_seq=Job.stream_seq + 1,
        )
        .returning(Job.id, Job.state, Job.attempt, Job.stream_seq),
        execution_options=UNSYNCED,
    ).one_or_none()
    if row is None:
        return
    kind, message = "cancel_requested", "The job was asked to stop."
    if row.state == JobState.CANCELLED:
        kind, message = "cancelled", "The job was cancelled before it ran."
    append(session, row, Told(kind, "info", message, {}))


def remove(session: Session, job_id: UUID) -> list[UUID]:
    """Delete a job that has ended, with all that hangs on it; returns its artifact, if it has one.

    Raises `JobNotFound`, `JobNotFinished`.
    """
    artifacts = discard(session, job_id, kind=Kind.TRAINING)
    if artifacts is None:
        raise JobNotFinished(job_id=job_id, state=get(session, job_id).state)
    return artifacts


def discard(session: Session, job_id: UUID, *, kind: Kind) -> list[UUID] | None:
    """The same for a row of this kind. `None`: there is none such that has ended."""
    gone = session.scalars(
        delete(Job)
        .where(Job.id == job_id, Job.kind == kind, Job.state.in_(FINAL))
        .returning(Job.artifact_id),
        execution_options=UNSYNCED,
    ).all()
    return [artifact_id for artifact_id in gone if artifact_id is not None] if gone else None


def events(session: Session, job_id: UUID, *, after: int, limit: int) -> Sequence[JobEvent]:
    """Events by number."""
    statement = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after)
    return session.scalars(statement.order_by(JobEvent.seq).limit(limit)).all()


def newest_events(session: Session, job_id: UUID, *, limit: int) -> Sequence[JobEvent]:
    """The last ones, the newest first."""
    statement = select(JobEvent).where(JobEvent.job_id == job_id)
    return session.scalars(statement.order_by(JobEvent.seq.desc()).limit(limit)).all()


def points(
    session: Session,
    job_id: UUID,
    *,
    after: int,
    limit: int,
    split: str | None = None,
    name: str | None = None,
) -> Sequence[MetricPoint]:
    """Metric points by number."""
    statement = select(MetricPoint).where(MetricPoint.job_id == job_id, MetricPoint.seq > after)
    if split is not None:
        statement = statement.where(MetricPoint.split == split)
    if name is not None:
        statement = statement.where(MetricPoint.name == name)
    return session.scalars(statement.order_by(MetricPoint.seq).limit(limit)).all()


def between(
    session: Session, job_id: UUID, *, after: int, upto: int
) -> Sequence[JobEvent | MetricPoint]:
    """Events and points with numbers from `after` (without) to `upto` (with), in order."""
    found: list[JobEvent | MetricPoint] = []
    for kind in (JobEvent, MetricPoint):
        numbered = select(kind).where(kind.job_id == job_id, kind.seq > after, kind.seq <= upto)
        found.extend(session.scalars(numbered))
    return sorted(found, key=lambda row: row.seq)
