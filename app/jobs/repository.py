"""SQL of the service on jobs, their events and their metric points.

Lookups by id and lists return one kind of job; queue positions count all kinds. What workers write
is in `app.queue.leases`.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, get_args
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    String,
    Uuid,
    and_,
    case,
    cast,
    column,
    delete,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    table,
    union_all,
    update,
)
from sqlalchemy.orm import Session, aliased, defer, load_only

from app.database.base import now
from app.jobs.errors import JobContinued, JobNotFinished, JobNotFound
from app.outbox import repository as outbox
from app.queue.enums import DeviceClass, JobKind, JobState
from app.queue.events import EventContent, add_job_event
from app.queue.fencing import NO_SESSION_SYNC
from app.queue.leases import running_seconds_expression
from app.queue.tables import Checkpoint, Job, JobEvent, MetricPoint
from app.queue.transitions import (
    CANCEL_REQUESTED,
    CLAIMABLE,
    CLEARED_WAIT,
    PAUSE_REQUESTED,
)
from app.queue.webhook_events import publish_training_job_ended
from lora_core.specs.data import Split
from lora_core.specs.task import TaskType
from lora_core.tasks.metric_info import main_metric

FINAL_STATES = tuple(state for state in JobState if state.final)
ACTIVE_STATES = tuple(state for state in JobState if not state.final)
# What `app.sweeps`, a layer above, knows as the table of trials.
_TRIALS = table("trials", column("job_id", Uuid()), column("sweep_id", Uuid()))
# What `app.openai` and `app.mistral` know as the tables of what their clients asked for.
_API_REQUESTS = [
    table(name, column("job_id", Uuid()), column("request"))
    for name in ("openai_jobs", "mistral_jobs")
]
MAX_SCANNED = 10_000  # jobs that one call reads when no index covers its filter
MAX_COUNTED = 10_000  # jobs per state that one call counts
_STATE_COLUMNS = load_only(
    Job.kind,
    Job.state,
    Job.attempt,
    Job.step,
    Job.total_steps,
    Job.cancel_requested_at,
    Job.pause_requested_at,
    Job.stream_seq,
)


@dataclass(frozen=True)
class JobFilter:
    """The filter of a list of jobs."""

    state: JobState | None = None
    method: str | None = None
    search: str | None = None  # substring of the name, the base or the data source
    tag: str | None = None
    include_trials: bool = True  # jobs created by sweeps
    dataset: UUID | None = None  # an upload that the job reads


SPLIT_PREFERENCE = ("test", "validation")  # the accuracy shown is that of the first available


class JobSummaryFields(NamedTuple):
    """The few numbers of a job's summary that lists show. None: unknown, or not available yet."""

    accuracy: float | None = None
    main_metric: float | None = None
    trainable_parameters: int | None = None
    total_parameters: int | None = None
    model_version: str | None = None
    learned: bool | None = None


class JobPage(NamedTuple):
    """Jobs of one page, and the id after which the next page starts. None: this is the last."""

    jobs: Sequence[Job]
    next_after: UUID | None


def get_training_job(session: Session, job_id: UUID) -> Job:
    """Return a training job. Raises `JobNotFound`."""
    job = find_job(session, job_id, kind=JobKind.TRAINING)
    if job is None:
        raise JobNotFound(job_id=job_id)
    return job


def find_job(session: Session, job_id: UUID, *, kind: JobKind) -> Job | None:
    """Return the job if it is of that kind."""
    job = session.get(Job, job_id)
    return job if job is not None and job.kind == kind else None


def find_jobs(session: Session, job_ids: Collection[UUID], *, kind: JobKind) -> dict[UUID, Job]:
    """Return those of the jobs that exist and are of that kind, by id."""
    found = session.scalars(select(Job).where(Job.id.in_(job_ids), Job.kind == kind))
    return {job.id: job for job in found}


def registers_model(session: Session, job_id: UUID) -> bool:
    """Return whether a job that succeeds adds a model version; False if there is no such job.

    It leaves no `Job` in the session, which could be stale after waiting for an `Idempotency-Key`.
    """
    return session.scalar(select(Job.register_as).where(Job.id == job_id)) is not None


def get_jobs_with_state_columns(session: Session, job_ids: Collection[UUID]) -> dict[UUID, Job]:
    """Return those of the jobs that exist, with the columns of a `JobStateView`.

    Other columns are loaded on access.
    """
    statement = select(Job).where(Job.id.in_(job_ids), Job.kind == JobKind.TRAINING)
    return {job.id: job for job in session.scalars(statement.options(_STATE_COLUMNS))}


def list_jobs(
    session: Session,
    *,
    after: UUID | None,
    limit: int,
    kind: JobKind = JobKind.TRAINING,
    job_filter: JobFilter = JobFilter(),
) -> JobPage:
    """Return the newest jobs, without columns that grow with the labels (summaries, error details).

    Indexes cover every filter except `search` and `dataset`; for `tag`, an index finds the jobs
    that have tags. With one of these three, a call reads `MAX_SCANNED` jobs, so its page may have
    few jobs or none and still a next page.
    """
    statement = select(Job).options(*_DEFERRED_COLUMNS).where(Job.kind == kind)
    statement = statement.order_by(Job.id.desc())
    if after is not None:
        statement = statement.where(Job.id < after)
    if job_filter.state is not None:
        statement = statement.where(Job.state == job_filter.state)
    if job_filter.method is not None:
        statement = statement.where(Job.method == job_filter.method)
    if not job_filter.include_trials:
        statement = statement.where(Job.sweep_id.is_(None))
    if job_filter.tag is not None:
        statement = statement.where(Job.tags.is_not(None))
    next_after = None
    if conditions := list(_unindexed_conditions(job_filter)):
        window = statement.with_only_columns(Job.id).offset(MAX_SCANNED - 1).limit(1)
        next_after = session.scalars(window).first()
        statement = statement.where(*conditions)
        if next_after is not None:
            statement = statement.where(Job.id >= next_after)
    jobs = session.scalars(statement.limit(limit + 1)).all()
    if len(jobs) > limit:
        next_after = jobs[limit - 1].id
    return JobPage(jobs[:limit], next_after)


def get_job_summaries(session: Session, job_ids: Collection[UUID]) -> dict[UUID, JobSummaryFields]:
    """Extract summary numbers in the database, since whole summaries grow with the labels."""

    def metric(name: str) -> ColumnElement[float]:
        values = (Job.summary[(split, name)].as_float() for split in SPLIT_PREFERENCE)
        return func.coalesce(*values)

    task = Job.spec[("task", "type")].as_string()
    rows = session.execute(
        select(
            Job.id,
            metric("accuracy"),
            case(
                *(
                    (task == each, metric(main_metric({"task": {"type": each}})))
                    for each in get_args(TaskType)
                ),
                else_=metric(main_metric({})),
            ),
            Job.summary["trainable_parameters"].as_integer(),
            Job.summary["total_parameters"].as_integer(),
            Job.summary["model_version"].as_string(),
            Job.summary[("verdict", "learned")].as_boolean(),
        ).where(Job.id.in_(job_ids))
    )
    return {job_id: JobSummaryFields(*fields) for job_id, *fields in rows}


_DEFERRED_COLUMNS = tuple(
    defer(column, raiseload=True) for column in (Job.summary, Job.error_detail, Job.notes)
)


def get_running_seconds_by_job(session: Session, jobs: Iterable[Job]) -> dict[UUID, float]:
    """Return how long each job that has started ran until now, without pauses and waits."""
    started = {job.id: job.running_seconds for job in jobs if job.started_at is not None}
    running = select(Job.id, running_seconds_expression(now())).where(
        Job.id.in_(started), Job.state == JobState.RUNNING
    )
    return {**started, **dict(session.execute(running).all())}


def _unindexed_conditions(job_filter: JobFilter) -> Iterator[ColumnElement[bool]]:
    if job_filter.search is not None:
        yield _mentions(job_filter.search)
    if job_filter.tag is not None:
        yield cast(Job.tags, String).contains(json.dumps(job_filter.tag), autoescape=True)
    if job_filter.dataset is not None:
        yield cast(Job.dataset_ids, String).contains(str(job_filter.dataset))


def _mentions(text: str) -> ColumnElement[bool]:
    # One name, or one per split. With one path, SQLite parses the JSON once.
    source = cast(Job.spec[("data", "source")], String)
    names: ColumnElement[str] = source
    for split in Split:
        names = func.replace(names, f'"{split}":', "")
    by_name, by_base, by_source, by_names = (
        searched.icontains(text, autoescape=True)
        for searched in (Job.name, Job.base, source, names)
    )
    return or_(by_name, by_base, and_(by_source, by_names))  # most jobs need no replacements


def count_training_jobs_by_state(
    session: Session, *, include_trials: bool = True
) -> dict[JobState, int]:
    """Count the training jobs in each state that has any.

    `MAX_COUNTED` + 1 means more than `MAX_COUNTED`. `include_trials`: count jobs of sweeps, too.
    """
    counts = {}
    for state in JobState:
        # Without a column that the index lacks, such as the id, no row is read.
        jobs = select(literal(1)).where(Job.kind == JobKind.TRAINING, Job.state == state)
        if not include_trials:
            jobs = jobs.where(Job.sweep_id.is_(None))
        count = select(func.count()).select_from(jobs.limit(MAX_COUNTED + 1).subquery())
        counts[state] = session.scalars(count).one()
    return {state: count for state, count in counts.items() if count}


def queue_positions(session: Session, job_ids: Collection[UUID]) -> dict[UUID, int]:
    """Return the queue positions of the queued jobs, from 1, among all that compete for a device.

    They follow the claim order; jobs that are not due yet come after all that are. Paused jobs have
    no position.
    """
    not_due = case((Job.run_after > now().select().scalar_subquery(), 1), else_=0)
    order = (not_due, Job.priority.desc(), Job.created_at, Job.id)
    position = case(
        *(
            (Job.device_class == device_class, _running_position(device_class, order))
            for device_class in DeviceClass
        )
    ).label("position")
    queue = select(Job.id, position).where(CLAIMABLE).subquery()
    rows = session.execute(select(queue.c.id, queue.c.position).where(queue.c.id.in_(job_ids)))
    return {row.id: row.position for row in rows}


def next_queue_position(session: Session, *, device_class: DeviceClass, priority: int) -> int:
    """Return the position a new job would get now: due, and the youngest of its priority."""
    moment = now().select().scalar_subquery()  # otherwise SQLite computes it for each row
    due = (CLAIMABLE, Job.run_after <= moment)
    ahead = (Job.device_class.in_(_competing_classes(device_class)), Job.priority >= priority)
    return 1 + session.scalars(select(func.count()).select_from(Job).where(*due, *ahead)).one()


def _running_position(device_class: DeviceClass, order: tuple[Any, ...]) -> Any:
    """Return the number of jobs up to this row that compete with a job of `device_class`."""
    one = case((Job.device_class.in_(_competing_classes(device_class)), 1), else_=0)
    return func.sum(one).over(order_by=order, rows=(None, 0))


def _competing_classes(device_class: DeviceClass) -> tuple[DeviceClass, ...]:
    """Return the device classes whose jobs may take the same device."""
    if device_class is DeviceClass.ANY:
        return tuple(DeviceClass)
    return (device_class, DeviceClass.ANY)


class MeasuredSpeed(NamedTuple):
    """What a job that succeeded measured. None: it has no such number, as with a linear model."""

    finished_at: float
    flops_per_token: float | None
    tokens_per_second: float | None
    train_seconds: float | None
    features_found: bool | None


def list_latest_speeds(
    session: Session, *, device_class: DeviceClass, limit: int
) -> list[MeasuredSpeed]:
    """Return the speeds of the jobs that succeeded last, as `get_job_summaries` reads them."""
    rows = session.execute(_latest_speeds(_competing_classes(device_class), limit))
    speeds = [MeasuredSpeed(*row) for row in rows]
    speeds.sort(key=lambda speed: speed.finished_at, reverse=True)
    return speeds[:limit]


@cache  # building it takes as long as running it
def _latest_speeds(device_classes: tuple[DeviceClass, ...], limit: int) -> CompoundSelect[Any]:
    """Select the latest speeds of each device class, since within each, the index is in order."""
    speeds = (
        select(
            Job.finished_at,
            Job.plan["flops_per_token"].as_float(),
            Job.summary["tokens_per_second"].as_float(),
            Job.summary["train_seconds"].as_float(),
            Job.summary["features_found"].as_boolean(),
        )
        .where(Job.kind == JobKind.TRAINING, Job.state == JobState.SUCCEEDED)
        .order_by(Job.finished_at.desc())
        .limit(limit)
    )
    each = (speeds.where(Job.device_class == one).subquery() for one in device_classes)
    return union_all(*(select(one) for one in each))


def count_active_jobs_of_caller(session: Session, caller_id: UUID) -> int:
    """Count the unfinished jobs and prediction runs of this caller."""
    active = and_(Job.created_by == caller_id, Job.state.in_(ACTIVE_STATES))
    return session.scalars(select(func.count()).select_from(Job).where(active)).one()


def find_original_job(session: Session, job: Job) -> Job:
    """Return the job of which this one is a retry of a retry, or the job itself.

    A job that makes the model of a trial continues the trial, but is no retry of it.
    """
    while job.continues is not None:
        continued = session.get(Job, job.continues)
        if continued is None or continued.sweep_id is not None:
            break
        job = continued
    return job


def find_start_of_training(session: Session, checkpoint: Checkpoint) -> JobEvent | None:
    """Return the event after which the attempt that saved the checkpoint made its first step."""
    statement = select(JobEvent).where(
        JobEvent.job_id == checkpoint.job_id,
        JobEvent.attempt == checkpoint.attempt,
        JobEvent.kind.in_(("resumed", "training")),
    )
    return session.scalars(statement.order_by(JobEvent.seq).limit(1)).first()


def copy_api_requests(session: Session, *, of: UUID, to: UUID) -> None:
    """Store for a retry what a client of another API asked for, so that its API has the retry."""
    for requests in _API_REQUESTS:
        copied = select(literal(to, Uuid()), requests.c.request).where(requests.c.job_id == of)
        session.execute(insert(requests).from_select(["job_id", "request"], copied))


def find_active_retry(session: Session, original: Job) -> UUID | None:
    """Return an unfinished retry of this job, or of one of its retries."""
    is_retry = Job.continues == original.id
    if original.continues is not None:  # it makes the model of a trial; its retry may, too
        same_model = Job.register_as == original.register_as
        is_retry = or_(is_retry, and_(Job.continues == original.continues, same_model))
    retries = select(Job.id).where(is_retry).cte(recursive=True)
    retries = retries.union_all(select(Job.id).where(Job.continues == retries.c.id))
    active = select(Job.id).join(retries, Job.id == retries.c.id)
    return session.scalars(active.where(Job.state.in_(ACTIVE_STATES)).limit(1)).first()


def add_job_with_first_event(session: Session, job: Job) -> None:
    """Insert a job with its first event, and a training job into the outbox of MLflow.

    Its `stream_seq` is already set when it inherits metric points from the job it continues.
    """
    job.stream_seq = (job.stream_seq or 0) + 1
    session.add(job)
    session.flush()
    add_job_event(session, job, EventContent("queued", "info", "The job was queued.", {}))
    if job.kind == JobKind.TRAINING:
        outbox.add_mlflow_run(session, job.id)


def update_job(session: Session, job_id: UUID, values: Mapping[str, Any]) -> Job:
    """Set columns that no worker writes. Raises `JobNotFound`.

    It is a single UPDATE, since the job may be deleted at the same time.
    """
    if values:
        conditions = (Job.id == job_id, Job.kind == JobKind.TRAINING)
        session.execute(
            update(Job).where(*conditions).values(values), execution_options=NO_SESSION_SYNC
        )
    return get_training_job(session, job_id)


def request_cancel(session: Session, job_id: UUID) -> None:
    """Cancel a queued job, request that a running one stops, leave any other as it is.

    It is a single UPDATE, so whatever a worker does concurrently happens before or after it.
    """
    running = and_(Job.state == JobState.RUNNING, Job.cancel_requested_at.is_(None))
    ended = {**CLEARED_WAIT, "state": JobState.CANCELLED, "finished_at": now()}
    row = session.execute(
        update(Job)
        .where(Job.id == job_id, or_(Job.state == JobState.QUEUED, running))
        .values(
            cancel_requested_at=func.coalesce(Job.cancel_requested_at, now()),
            stream_seq=Job.stream_seq + 1,
            **_only_if_queued(ended),
        )
        .returning(Job.id, Job.state, Job.attempt, Job.stream_seq),
        execution_options=NO_SESSION_SYNC,
    ).one_or_none()
    if row is None:
        return
    kind, message = "cancel_requested", "A cancel was requested."
    if row.state == JobState.CANCELLED:
        when = "in the queue" if row.attempt else "before it ran"
        kind, message = "cancelled", f"The job was cancelled {when}."
    add_job_event(session, row, EventContent(kind, "info", message, {}))
    if row.state == JobState.CANCELLED:
        publish_training_job_ended(session, row.id)


def request_pause(session: Session, job_id: UUID) -> None:
    """Pause a queued job, request that a running one stops, leave any other as it is.

    It is a single UPDATE, like `request_cancel`.
    """
    row = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.state.in_(ACTIVE_STATES), ~CANCEL_REQUESTED, ~PAUSE_REQUESTED)
        .values(pause_requested_at=now(), stream_seq=Job.stream_seq + 1)
        .returning(Job.id, Job.state, Job.attempt, Job.stream_seq),
        execution_options=NO_SESSION_SYNC,
    ).one_or_none()
    if row is None:
        return
    kind, message = "pause_requested", "A pause was requested."
    if row.state == JobState.QUEUED:
        kind, message = "paused", "The job was paused in the queue."
    add_job_event(session, row, EventContent(kind, "info", message, {}))


def request_resume(session: Session, job_id: UUID) -> bool:
    """Withdraw the pause of an unfinished job. Return whether that made it claimable.

    The time until now counts neither as time in the queue nor as time that it waited for a
    resource. A delay after a failure stays. A running job goes on, unless it has already been
    stopped for the pause; then it returns to the queue.
    """
    due_in_future = or_(Job.state != JobState.QUEUED, Job.run_after > now())
    sent_again = {**CLEARED_WAIT, "dispatched_at": now(), "dispatch_count": 0}
    row = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.state.in_(ACTIVE_STATES), PAUSE_REQUESTED)
        .values(
            pause_requested_at=null(),
            run_after=case((due_in_future, Job.run_after), else_=now()),
            stream_seq=Job.stream_seq + 1,
            **_only_if_queued(sent_again),
        )
        .returning(Job.id, Job.state, Job.attempt, Job.stream_seq),
        execution_options=NO_SESSION_SYNC,
    ).one_or_none()
    if row is None:
        return False
    resumed: bool = row.state == JobState.QUEUED
    message = "The job is back in the queue." if resumed else "The pause was withdrawn."
    add_job_event(session, row, EventContent("resume_requested", "info", message, {}))
    return resumed


def _only_if_queued(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return column values that leave a job in any other state as it is."""
    queued = Job.state == JobState.QUEUED
    return {name: case((queued, value), else_=getattr(Job, name)) for name, value in values.items()}


def find_sweep_of_job(session: Session, job_id: UUID, *, for_update: bool = False) -> UUID | None:
    """Return the sweep that created this job, or else one whose trial has its results.

    With `for_update`, the job is locked, so that no other trial takes its results meanwhile.
    """
    reused_by = select(_TRIALS.c.sweep_id).where(_TRIALS.c.job_id == Job.id).limit(1)
    sweep_id = func.coalesce(Job.sweep_id, reused_by.scalar_subquery())
    if for_update:
        session.execute(select(Job.id).where(Job.id == job_id).with_for_update())
    return session.scalar(select(sweep_id).where(Job.id == job_id))


def raise_if_continued(session: Session, jobs: ColumnElement[bool]) -> None:
    """Raise `JobContinued` if an unfinished job starts from the checkpoints of one of these."""
    later = aliased(Job)
    pairs = select(Job.id, later.id).join(later, later.continues == Job.id)
    saved = select(Checkpoint.job_id).where(Checkpoint.job_id == Job.id, ~Checkpoint.bad).exists()
    needed = (jobs, later.state.in_(ACTIVE_STATES), saved)
    for job_id, other in session.execute(pairs.where(*needed).limit(1)):
        raise JobContinued(job_id=job_id, other=other)


def delete_finished_training_job(session: Session, job_id: UUID) -> list[UUID]:
    """Delete a finished job with its rows in other tables; return the id of its artifact, if any.

    Raises `JobNotFound`, `JobNotFinished`.
    """
    artifact_ids = delete_finished_job(session, job_id, kind=JobKind.TRAINING)
    if artifact_ids is None:
        raise JobNotFinished(job_id=job_id, state=get_training_job(session, job_id).state)
    return artifact_ids


def delete_finished_job(session: Session, job_id: UUID, *, kind: JobKind) -> list[UUID] | None:
    """Delete a finished row of this kind; return its artifact ids. None: there is no such row."""
    deleted = session.scalars(
        delete(Job)
        .where(Job.id == job_id, Job.kind == kind, Job.state.in_(FINAL_STATES))
        .returning(Job.artifact_id),
        execution_options=NO_SESSION_SYNC,
    ).all()
    if not deleted:
        return None
    return [artifact_id for artifact_id in deleted if artifact_id is not None]


def list_events(session: Session, job_id: UUID, *, after: int, limit: int) -> Sequence[JobEvent]:
    """Return events by sequence number."""
    statement = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after)
    return session.scalars(statement.order_by(JobEvent.seq).limit(limit)).all()


def list_newest_events(
    session: Session, job_id: UUID, *, before: int | None = None, limit: int
) -> Sequence[JobEvent]:
    """Return the latest events before a sequence number, the newest first."""
    statement = select(JobEvent).where(JobEvent.job_id == job_id)
    if before is not None:
        statement = statement.where(JobEvent.seq < before)
    return session.scalars(statement.order_by(JobEvent.seq.desc()).limit(limit)).all()


def list_metric_points(
    session: Session,
    job_id: UUID,
    *,
    after: int,
    limit: int,
    split: str | None = None,
    name: str | None = None,
) -> Sequence[MetricPoint]:
    """Return metric points by sequence number."""
    statement = select(MetricPoint).where(MetricPoint.job_id == job_id, MetricPoint.seq > after)
    if split is not None:
        statement = statement.where(MetricPoint.split == split)
    if name is not None:
        statement = statement.where(MetricPoint.name == name)
    return session.scalars(statement.order_by(MetricPoint.seq).limit(limit)).all()


def list_events_and_metric_points(
    session: Session, job_id: UUID, *, after: int, last_seq: int
) -> Sequence[JobEvent | MetricPoint]:
    """Return events and points with `after` < `seq` <= `last_seq`, in order."""
    rows: list[JobEvent | MetricPoint] = []
    for entity in (JobEvent, MetricPoint):
        in_range = (entity.job_id == job_id, entity.seq > after, entity.seq <= last_seq)
        rows.extend(session.scalars(select(entity).where(*in_range)))
    return sorted(rows, key=lambda row: row.seq)
