"""What is known of a cell already, from whichever sweep or caller it comes."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.database.base import JsonObject
from app.jobs.states import JobState, Lane
from app.jobs.tables import Checkpoint, Job

LIVE = (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True)
class Entry:
    """A job that has the figures, or will have them."""

    job_id: UUID
    ended: bool


@dataclass(frozen=True)
class Unknown:
    """The cell has to be run. `continues`: a job that got part of the way.

    `later`: one is just being stopped, whose checkpoint is worth waiting for.
    """

    continues: UUID | None = None
    later: bool = False


def find(session: Session, cell_sha256: str, draft: JsonObject) -> Entry | Unknown:
    """Look for the figures of a cell with these columns of a job.

    Whoever waits for the job of somebody else must be sure of its end: it must be for a device that
    would do for the cell, or run already, and have no limit of its own.
    """
    spec, lanes = draft["spec"], (draft["lane"], Lane.ANY)
    jobs = _jobs(session, cell_sha256)
    same = [job for job in jobs if _serves(job, spec)]
    if ended := next((job for job in same if job.state == JobState.SUCCEEDED), None):
        return Entry(ended.id, ended=True)
    live = [
        job
        for job in same
        if job.time_limit_seconds is None
        if job.state == JobState.RUNNING or (job.state == JobState.QUEUED and job.lane in lanes)
    ]
    if coming := next((job for job in live if job.cancel_requested_at is None), None):
        return Entry(coming.id, ended=False)
    return Unknown(continues=_furthest(session, jobs, spec), later=bool(live))


def known(session: Session, cell_sha256: str, draft: JsonObject) -> bool:
    """Whether its figures are there."""
    found = find(session, cell_sha256, draft)
    return isinstance(found, Entry) and found.ended


def _jobs(session: Session, cell_sha256: str) -> Sequence[Job]:
    """Every run of it and every trial, the oldest first. No other kind of job has this hash."""
    return session.scalars(select(Job).where(Job.cell_sha256 == cell_sha256).order_by(Job.id)).all()


def _serves(job: Job, spec: JsonObject) -> bool:
    """Whether its figures are those that the description asks for."""
    if _trial(job.spec) != _trial(spec):
        return False
    asked, gives = spec["result"]["train_figures"], job.spec.get("result", {})
    return bool(not asked or gives.get("train_figures"))


def _furthest(session: Session, jobs: Sequence[Job], spec: JsonObject) -> UUID | None:
    """Whose checkpoint is the furthest that lies on the way."""
    upto = _share(spec)
    on_the_way = [job.id for job in jobs if _share(job.spec) <= upto and job.state not in LIVE]
    if not on_the_way:
        return None
    good = (Checkpoint.job_id.in_(on_the_way), Checkpoint.bad.is_(False))
    furthest = (
        select(Checkpoint.job_id, func.max(Checkpoint.step).label("step"))
        .where(*good)
        .group_by(Checkpoint.job_id)
        .order_by(func.max(Checkpoint.step).desc(), Checkpoint.job_id)
    )
    row = session.execute(furthest.limit(1)).first()
    return row.job_id if row else None


def _trial(spec: JsonObject) -> JsonObject | None:
    trial: JsonObject | None = spec.get("trial")
    return trial


def _share(spec: JsonObject) -> float:
    trial = _trial(spec)
    return 1.0 if trial is None else float(trial["share"])
