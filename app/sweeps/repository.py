"""Rows of sweeps and their cells, with what the jobs of the cells tell."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, and_, case, delete, false, func, insert, null, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session, defer

from app.database.base import JsonObject
from app.database.clock import now
from app.jobs.repository import FINAL
from app.queue.fencing import UNSYNCED
from app.queue.states import JobState
from app.queue.tables import Job
from app.sweeps.errors import SweepNotFound
from app.sweeps.states import CellState, SweepState
from app.sweeps.tables import Sweep, SweepCell

LOST = "lost_worker"  # the code of a job that was given up so
MOST_LOST = 3  # jobs of one cell
MOST_NAMED = 500  # values in one statement

STATE = case(
    (SweepCell.problem.is_not(None), CellState.FAILED),
    (SweepCell.job_id.is_(None), CellState.WAITING),
    else_=Job.state,
).label("state")


@dataclass(frozen=True, slots=True)
class Place:
    """One cell at one rung, and how it stands: as long as that is the same, all of it is."""

    number: int
    rung: int
    state: CellState
    job_id: UUID | None
    attempt: int | None  # claims of its job
    problem: str | None


class Waiting(NamedTuple):
    """A cell at a rung that needs a job."""

    number: int
    rung: int
    again: bool  # it had one, which was no end of the cell


def get(session: Session, sweep_id: UUID) -> Sweep:
    """Raises `SweepNotFound`."""
    sweep = session.get(Sweep, sweep_id)
    if sweep is None or not sweep.ready:
        raise SweepNotFound(sweep_id=sweep_id)
    return sweep


def page(
    session: Session,
    *,
    after: UUID | None,
    limit: int,
    state: SweepState | None = None,
    without: Collection[InstrumentedAttribute[Any]] = (Sweep.pinned,),
) -> Sequence[Sweep]:
    """The newest first; columns that are left out may not be asked for."""
    left_out = (defer(column, raiseload=True) for column in without)
    statement = (
        select(Sweep).options(*left_out).where(Sweep.ready).order_by(Sweep.id.desc()).limit(limit)
    )
    if after is not None:
        statement = statement.where(Sweep.id < after)
    if state is not None:
        statement = statement.where(Sweep.state == state)
    return session.scalars(statement).all()


def running(session: Session) -> Sequence[UUID]:
    """Sweeps that give out cells, the oldest first."""
    statement = select(Sweep.id).where(Sweep.state == SweepState.RUNNING, Sweep.ready)
    return session.scalars(statement.order_by(Sweep.id)).all()


def trials_of(session: Session, caller_id: UUID) -> int:
    """How many trials there are in sweeps of this caller that run or are paused."""
    open_ones = (
        select(SweepCell.number)
        .join(Sweep, Sweep.id == SweepCell.sweep_id)
        .where(Sweep.state.in_((SweepState.RUNNING, SweepState.PAUSED)), Sweep.ready)
        .where(Sweep.created_by == caller_id, SweepCell.rung == 0)
    )
    return session.scalars(select(func.count()).select_from(open_ones.subquery())).one()


def count(session: Session, sweep_id: UUID) -> int:
    """How many trials it has."""
    mine = (SweepCell.sweep_id == sweep_id, SweepCell.rung == 0)
    return session.scalars(select(func.count()).select_from(SweepCell).where(*mine)).one()


def add_trials(session: Session, rows: Sequence[JsonObject]) -> None:
    """Store rows as `growth.batches` has them."""
    session.execute(insert(SweepCell), rows)


def make_ready(session: Session, sweep_id: UUID) -> Sweep:
    """Let one that was being stored be seen."""
    sweep = session.get_one(Sweep, sweep_id)
    sweep.ready = True
    session.flush()
    return sweep


def oldest_unready(session: Session, *, seconds: float) -> UUID | None:
    """One whose trials have been being stored for so long that its process must be gone."""
    left = (Sweep.ready.is_(False), Sweep.created_at < now() - seconds)
    return session.scalars(select(Sweep.id).where(*left).order_by(Sweep.id).limit(1)).first()


def discard_unready(session: Session, sweep_id: UUID) -> None:
    """Remove one that is still being stored, with its trials."""
    unready = (Sweep.id == sweep_id, Sweep.ready.is_(False))
    session.execute(delete(Sweep).where(*unready), execution_options=UNSYNCED)


def concerned(session: Session, job_id: UUID) -> Sequence[UUID]:
    """Sweeps that give out cells and wait for this job, or that made it."""
    made_for = select(Job.sweep_id).where(Job.id == job_id)
    uses = select(SweepCell.sweep_id).where(SweepCell.job_id == job_id)
    statement = select(Sweep.id).where(Sweep.state == SweepState.RUNNING)
    mine = or_(Sweep.id.in_(made_for), Sweep.id.in_(uses))
    return session.scalars(statement.where(mine).order_by(Sweep.id)).all()


def places(session: Session, sweep_id: UUID) -> list[Place]:
    """Every cell at every rung, by rung and number: without what is heavy to read."""
    rows = session.execute(
        select(
            *(SweepCell.number, SweepCell.rung, STATE),
            *(SweepCell.job_id, Job.attempt, SweepCell.problem),
        )
        .outerjoin(Job, Job.id == SweepCell.job_id)
        .where(SweepCell.sweep_id == sweep_id)
        .order_by(SweepCell.rung, SweepCell.number)
    )
    return [Place(number, rung, CellState(state), *rest) for number, rung, state, *rest in rows]


# A job that was given up because its workers were lost is no end: a worker that is killed must not
# cost a cell. But nobody tries for ever, since a cell may be what kills them. Nor is the job of
# somebody else that was cancelled.
_AGAIN = or_(
    and_(Job.error_code == LOST, SweepCell.lost < MOST_LOST),
    and_(SweepCell.reused, Job.state == JobState.CANCELLED),
)


def active(session: Session, sweep_id: UUID) -> set[UUID]:
    """Jobs of its cells that have not ended."""
    statement = select(Job.id).join(SweepCell, SweepCell.job_id == Job.id)
    mine = (SweepCell.sweep_id == sweep_id, Job.state.not_in(FINAL))
    return set(session.scalars(statement.where(*mine)))


def waiting(session: Session, sweep_id: UUID, *, limit: int) -> list[Waiting]:
    """The first cells that need a job, by rung and number."""
    never = and_(SweepCell.job_id.is_(None), SweepCell.problem.is_(None))
    rows = session.execute(
        select(SweepCell.number, SweepCell.rung, func.coalesce(_AGAIN, false()))
        .outerjoin(Job, Job.id == SweepCell.job_id)
        .where(SweepCell.sweep_id == sweep_id, or_(never, _AGAIN))
        .order_by(SweepCell.rung, SweepCell.number)
        .limit(limit)
    )
    return [Waiting(*row) for row in rows]


def summaries(
    session: Session, sweep_id: UUID
) -> Sequence[Row[tuple[int, int, JsonObject, JsonObject | None]]]:
    """(number, rung, settings, summary) of every cell at every rung; no summary: no success."""
    succeeded = case((Job.state == JobState.SUCCEEDED, Job.summary), else_=null())
    return session.execute(
        select(SweepCell.number, SweepCell.rung, SweepCell.settings, succeeded.label("summary"))
        .outerjoin(Job, Job.id == SweepCell.job_id)
        .where(SweepCell.sweep_id == sweep_id)
        .order_by(SweepCell.rung, SweepCell.number)
    ).all()


def cell(session: Session, sweep_id: UUID, number: int, rung: int) -> SweepCell:
    """One that is there."""
    return session.get_one(SweepCell, (sweep_id, number, rung))


def whole(
    session: Session, sweep_id: UUID, *, only: Collection[int] | None = None
) -> Sequence[tuple[SweepCell, Job | None]]:
    """Cells at every rung with their jobs, by number and rung: all, or `only` these numbers."""
    statement = (
        select(SweepCell, Job)
        .outerjoin(Job, Job.id == SweepCell.job_id)
        .where(SweepCell.sweep_id == sweep_id)
        .order_by(SweepCell.number, SweepCell.rung)
    )
    if only is not None and len(only) <= MOST_NAMED:
        statement = statement.where(SweepCell.number.in_(only))
    found = ((row[0], row[1]) for row in session.execute(statement))
    return [row for row in found if only is None or row[0].number in only]


def reused(session: Session, sweep_id: UUID) -> list[tuple[int, bool]]:
    """(number, whether its figures were known) of every cell at every rung, by rung."""
    statement = select(SweepCell.number, SweepCell.reused).where(SweepCell.sweep_id == sweep_id)
    return [(row[0], row[1]) for row in session.execute(statement.order_by(SweepCell.rung))]


def settings(session: Session, sweep_id: UUID) -> list[JsonObject]:
    """Those of every cell, by number."""
    statement = select(SweepCell.settings).where(
        SweepCell.sweep_id == sweep_id, SweepCell.rung == 0
    )
    return list(session.scalars(statement.order_by(SweepCell.number)))


def used_elsewhere(session: Session, job_id: UUID, *, but: UUID) -> bool:
    """Whether another sweep, which may be paused, waits for this job."""
    statement = (
        select(SweepCell.number)
        .join(Sweep, Sweep.id == SweepCell.sweep_id)
        .where(SweepCell.job_id == job_id, SweepCell.sweep_id != but)
        .where(Sweep.state.in_((SweepState.RUNNING, SweepState.PAUSED)))
    )
    return session.scalars(statement.limit(1)).first() is not None


def detach(session: Session, sweep_id: UUID, states: Collection[CellState]) -> None:
    """Let the cells whose jobs are in these states wait for new ones."""
    such_a_job = select(Job.id).where(Job.id == SweepCell.job_id, Job.state.in_(states)).exists()
    mine = SweepCell.sweep_id == sweep_id
    # One that never had a job has no draft of it: another try would end the same way.
    away = or_(
        such_a_job,
        and_(SweepCell.problem.is_not(None), SweepCell.cell_sha256 != ""),
    )
    session.execute(
        update(SweepCell).where(mine, away).values(job_id=None, reused=False, problem=None, lost=0),
        execution_options=UNSYNCED,
    )


def jobs_of(session: Session, sweep_id: UUID) -> Sequence[UUID]:
    """Jobs that this sweep made; those that another one uses are its from now on."""
    user = (
        select(SweepCell.sweep_id)
        .where(SweepCell.job_id == Job.id, SweepCell.sweep_id != sweep_id)
        .limit(1)
        .scalar_subquery()
    )
    session.execute(
        update(Job).where(Job.sweep_id == sweep_id, user.is_not(None)).values(sweep_id=user),
        execution_options=UNSYNCED,
    )
    return session.scalars(select(Job.id).where(Job.sweep_id == sweep_id).order_by(Job.id)).all()


def unfinished_jobs(session: Session, sweep_id: UUID) -> int:
    """Jobs that it made and that have not ended."""
    mine = (Job.sweep_id == sweep_id, Job.state.not_in(FINAL))
    return session.scalars(select(func.count()).select_from(Job).where(*mine)).one()


def remove(session: Session, sweep_id: UUID) -> None:
    """Delete a sweep; its cells go with it."""
    session.execute(delete(Sweep).where(Sweep.id == sweep_id), execution_options=UNSYNCED)


def score(summary: JsonObject | None, objective: str) -> float | None:
    """The objective on validation, the higher the better."""
    found: Any = (summary or {}).get("validation", {}).get(objective)
    if found is None:
        return None
    return -float(found) if objective == "loss" else float(found)
