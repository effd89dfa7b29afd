"""Queries on sweeps, their trials and the jobs of the trials."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, and_, case, delete, false, func, insert, null, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session, defer

from app.database.base import JsonObject, now
from app.jobs.repository import FINAL_STATES
from app.queue.enums import JobState
from app.queue.fencing import NO_SESSION_SYNC
from app.queue.tables import Job
from app.queue.transitions import PAUSED
from app.sweeps.errors import SweepNotFound
from app.sweeps.states import ACTIVE_STATES, SweepState, TrialState
from app.sweeps.tables import Sweep, Trial
from lora_core.tasks.metric_info import METRICS

LOST_WORKER_CODE = "lost_worker"  # error code of a job whose worker was lost too often
_MAX_LOST_JOBS = 3  # such jobs of one trial
_MAX_IN_VALUES = 500  # values in one IN (...)

_TRIAL_STATE = case(
    (Trial.problem.is_not(None), TrialState.FAILED),
    (Trial.job_id.is_(None), TrialState.WAITING),
    else_=Job.state,
).label("state")


@dataclass(frozen=True, slots=True)
class TrialStatus:
    """Status of a trial at one rung. Equal statuses mean that nothing about the trial changed."""

    number: int
    rung: int
    state: TrialState
    job_id: UUID | None
    attempt: int | None  # of its job
    problem: str | None


class PendingTrial(NamedTuple):
    """A trial at a rung that needs a job."""

    number: int
    rung: int
    is_retry: bool  # it had a job that ended without a result, through no fault of the trial


def get_sweep(session: Session, sweep_id: UUID) -> Sweep:
    """Return a sweep. Raises `SweepNotFound`."""
    sweep = session.get(Sweep, sweep_id)
    if sweep is None or not sweep.ready:
        raise SweepNotFound(sweep_id=sweep_id)
    return sweep


def list_sweeps(
    session: Session,
    *,
    after: UUID | None,
    limit: int,
    state: SweepState | None = None,
    without: Collection[InstrumentedAttribute[Any]] = (Sweep.resolved_inputs,),
) -> Sequence[Sweep]:
    """Return sweeps, the newest first. Reading a column in `without` raises an error."""
    deferred = (defer(column, raiseload=True) for column in without)
    statement = (
        select(Sweep).options(*deferred).where(Sweep.ready).order_by(Sweep.id.desc()).limit(limit)
    )
    if after is not None:
        statement = statement.where(Sweep.id < after)
    if state is not None:
        statement = statement.where(Sweep.state == state)
    return session.scalars(statement).all()


def list_running_sweep_ids(session: Session) -> Sequence[UUID]:
    """Return the running sweeps, the oldest first."""
    statement = select(Sweep.id).where(Sweep.state == SweepState.RUNNING, Sweep.ready)
    return session.scalars(statement.order_by(Sweep.id)).all()


def count_trials_in_active_sweeps(session: Session, caller_id: UUID) -> int:
    """Return the number of trials in the running and paused sweeps of a caller.

    Includes trials that a strategy with a number of trials has yet to propose.
    """
    first_rung = (Trial.sweep_id == Sweep.id, Trial.rung == 0)
    stored = select(func.count()).select_from(Trial).where(*first_rung).scalar_subquery()
    planned = func.coalesce(Sweep.strategy["trials"].as_integer(), stored)
    active = (Sweep.state.in_(ACTIVE_STATES), Sweep.ready, Sweep.created_by == caller_id)
    return int(session.scalars(select(func.coalesce(func.sum(planned), 0)).where(*active)).one())


def count_trials(session: Session, sweep_id: UUID) -> int:
    """Return the number of trials in a sweep."""
    first_rung = (Trial.sweep_id == sweep_id, Trial.rung == 0)
    return session.scalars(select(func.count()).select_from(Trial).where(*first_rung)).one()


def add_trials(session: Session, rows: Sequence[JsonObject]) -> None:
    """Insert a batch of `scheduler.trial_row_batches`."""
    session.execute(insert(Trial), rows)


def mark_sweep_ready(session: Session, sweep_id: UUID) -> Sweep:
    """Make a sweep visible after its trials have been stored."""
    sweep = session.get_one(Sweep, sweep_id)
    sweep.ready = True
    session.flush()
    return sweep


def merge_hidden_sweep(session: Session, hidden_id: UUID, *, to: UUID) -> None:
    """Move the trials of a sweep that is not ready to another one, and delete it."""
    hidden = session.get_one(Sweep, hidden_id)
    session.execute(
        update(Trial).where(Trial.sweep_id == hidden_id).values(sweep_id=to),
        execution_options=NO_SESSION_SYNC,
    )
    session.delete(hidden)


def find_abandoned_unready_sweep(session: Session, *, seconds: float) -> UUID | None:
    """Return a sweep that has been unready for so long that its process must have died."""
    abandoned = (Sweep.ready.is_(False), Sweep.created_at < now() - seconds)
    return session.scalars(select(Sweep.id).where(*abandoned).order_by(Sweep.id).limit(1)).first()


def delete_unready_sweep(session: Session, sweep_id: UUID) -> None:
    """Delete a sweep that is not ready, with its trials."""
    unready = (Sweep.id == sweep_id, Sweep.ready.is_(False))
    session.execute(delete(Sweep).where(*unready), execution_options=NO_SESSION_SYNC)


def list_running_sweep_ids_using_job(session: Session, job_id: UUID) -> Sequence[UUID]:
    """Return the running sweeps that use or created this job."""
    created = select(Job.sweep_id).where(Job.id == job_id)
    uses = select(Trial.sweep_id).where(Trial.job_id == job_id)
    statement = select(Sweep.id).where(Sweep.state == SweepState.RUNNING)
    either = or_(Sweep.id.in_(created), Sweep.id.in_(uses))
    return session.scalars(statement.where(either).order_by(Sweep.id)).all()


def list_trial_statuses(session: Session, sweep_id: UUID) -> list[TrialStatus]:
    """Return every trial at every rung, by rung and number, without its large columns."""
    rows = session.execute(
        select(
            *(Trial.number, Trial.rung, _TRIAL_STATE),
            *(Trial.job_id, Job.attempt, Trial.problem),
        )
        .outerjoin(Job, Job.id == Trial.job_id)
        .where(Trial.sweep_id == sweep_id)
        .order_by(Trial.rung, Trial.number)
    )
    return [
        TrialStatus(number, rung, TrialState(state), *rest) for number, rung, state, *rest in rows
    ]


# A job that was given up because its workers were lost does not end the trial: a killed worker must
# not cost a trial. There is a limit, since the trial may be what kills the workers. A shared job
# that somebody else cancelled does not end the trial either, and one that is paused may never end.
_NEEDS_NEW_JOB = or_(
    and_(Job.error_code == LOST_WORKER_CODE, Trial.lost_jobs < _MAX_LOST_JOBS),
    and_(Trial.reused, or_(Job.state == JobState.CANCELLED, PAUSED)),
)


def list_active_job_ids(session: Session, sweep_id: UUID) -> set[UUID]:
    """Return the jobs of a sweep's trials that have not ended and are not paused."""
    statement = select(Job.id).join(Trial, Trial.job_id == Job.id)
    active = (Trial.sweep_id == sweep_id, Job.state.not_in(FINAL_STATES), ~PAUSED)
    return set(session.scalars(statement.where(*active)))


def list_pending_trials(session: Session, sweep_id: UUID, *, limit: int) -> list[PendingTrial]:
    """Return the first trials that need a job, by rung and number."""
    needs_job = and_(Trial.problem.is_(None), or_(Trial.job_id.is_(None), _NEEDS_NEW_JOB))
    rows = session.execute(
        select(Trial.number, Trial.rung, func.coalesce(_NEEDS_NEW_JOB, false()))
        .outerjoin(Job, Job.id == Trial.job_id)
        .where(Trial.sweep_id == sweep_id, needs_job)
        .order_by(Trial.rung, Trial.number)
        .limit(limit)
    )
    return [PendingTrial(*row) for row in rows]


def list_trial_job_summaries(
    session: Session, sweep_id: UUID
) -> Sequence[Row[tuple[int, int, JsonObject, JsonObject | None]]]:
    """Return (number, rung, settings, summary) of every trial at every rung.

    The summary is None unless the job succeeded.
    """
    summary = case((Job.state == JobState.SUCCEEDED, Job.summary), else_=null())
    return session.execute(
        select(Trial.number, Trial.rung, Trial.settings, summary.label("summary"))
        .outerjoin(Job, Job.id == Trial.job_id)
        .where(Trial.sweep_id == sweep_id)
        .order_by(Trial.rung, Trial.number)
    ).all()


def get_trial(session: Session, sweep_id: UUID, number: int, rung: int) -> Trial:
    """Return a trial that exists."""
    return session.get_one(Trial, (sweep_id, number, rung))


def list_trials_with_jobs(
    session: Session, sweep_id: UUID, *, numbers: Collection[int] | None = None
) -> Sequence[tuple[Trial, Job | None]]:
    """Return the trials at every rung with their jobs, by number and rung.

    `numbers` restricts the result to these trials; None means all.
    """
    statement = (
        select(Trial, Job)
        .outerjoin(Job, Job.id == Trial.job_id)
        .where(Trial.sweep_id == sweep_id)
        .order_by(Trial.number, Trial.rung)
    )
    if numbers is not None and len(numbers) <= _MAX_IN_VALUES:
        statement = statement.where(Trial.number.in_(numbers))
    rows = ((row[0], row[1]) for row in session.execute(statement))
    return [row for row in rows if numbers is None or row[0].number in numbers]


def list_reused_flags(session: Session, sweep_id: UUID) -> list[tuple[int, bool]]:
    """Return (number, whether its results were reused) of every trial at every rung, by rung."""
    statement = select(Trial.number, Trial.reused).where(Trial.sweep_id == sweep_id)
    return [(row[0], row[1]) for row in session.execute(statement.order_by(Trial.rung))]


def list_trial_settings(session: Session, sweep_id: UUID) -> list[JsonObject]:
    """Return the settings of every trial, by number."""
    statement = select(Trial.settings).where(Trial.sweep_id == sweep_id, Trial.rung == 0)
    return list(session.scalars(statement.order_by(Trial.number)))


def is_used_by_other_active_sweep(session: Session, job_id: UUID, *, but: UUID) -> bool:
    """Return whether a running or paused sweep other than `but` uses this job."""
    statement = (
        select(Trial.number)
        .join(Sweep, Sweep.id == Trial.sweep_id)
        .where(Trial.job_id == job_id, Trial.sweep_id != but)
        .where(Sweep.state.in_(ACTIVE_STATES))
    )
    return session.scalars(statement.limit(1)).first() is not None


def reset_trials(session: Session, sweep_id: UUID, states: Collection[TrialState]) -> None:
    """Return the trials whose jobs are in these states to waiting, with no lost jobs counted."""
    job_in_states = select(Job.id).where(Job.id == Trial.job_id, Job.state.in_(states)).exists()
    in_sweep = Trial.sweep_id == sweep_id
    # A trial that never could have a job has no job columns: a retry would fail in the same way.
    resettable = or_(
        job_in_states,
        and_(Trial.problem.is_not(None), Trial.trial_sha256 != ""),
    )
    session.execute(
        update(Trial)
        .where(in_sweep, resettable)
        .values(job_id=None, reused=False, problem=None, lost_jobs=0),
        execution_options=NO_SESSION_SYNC,
    )


def hand_over_shared_jobs(session: Session, sweep_id: UUID) -> Sequence[UUID]:
    """Hand jobs that another sweep uses over to that sweep; return the jobs that remain."""
    other_sweep = (
        select(Trial.sweep_id)
        .where(Trial.job_id == Job.id, Trial.sweep_id != sweep_id)
        .limit(1)
        .scalar_subquery()
    )
    session.execute(
        update(Job)
        .where(Job.sweep_id == sweep_id, other_sweep.is_not(None))
        .values(sweep_id=other_sweep),
        execution_options=NO_SESSION_SYNC,
    )
    return session.scalars(select(Job.id).where(Job.sweep_id == sweep_id).order_by(Job.id)).all()


def count_unfinished_jobs(session: Session, sweep_id: UUID) -> int:
    """Return the number of jobs that a sweep created and that have not ended."""
    unfinished = (Job.sweep_id == sweep_id, Job.state.not_in(FINAL_STATES))
    return session.scalars(select(func.count()).select_from(Job).where(*unfinished)).one()


def delete_sweep_row(session: Session, sweep_id: UUID) -> None:
    """Delete a sweep; its trials are deleted by the foreign key."""
    session.execute(delete(Sweep).where(Sweep.id == sweep_id), execution_options=NO_SESSION_SYNC)


def signed_objective_score(summary: JsonObject | None, objective: str) -> float | None:
    """Return the validation objective of a job summary, negated if lower is better."""
    value: Any = (summary or {}).get("validation", {}).get(objective)
    if value is None:
        return None
    return METRICS[objective].sign() * float(value)


# -- Progress, computed without loading the trials ------------------------------------------------


class RunningTrial(NamedTuple):
    """A trial whose job is running."""

    number: int
    job_id: UUID
    step: int
    total_steps: int | None


def count_trials_by_state(
    session: Session, sweep_ids: Collection[UUID]
) -> dict[UUID, dict[str, int]]:
    """Return for each sweep the number of trials in each state, each at its last rung."""
    # A window function, not a self-join: without statistics of new rows the planner would compare
    # every row with every other.
    newest_first = func.row_number().over(
        partition_by=(Trial.sweep_id, Trial.number), order_by=Trial.rung.desc()
    )
    trials = (
        select(Trial.sweep_id, _TRIAL_STATE, newest_first.label("position"))
        .outerjoin(Job, Job.id == Trial.job_id)
        .where(Trial.sweep_id.in_(sweep_ids))
        .subquery()
    )
    rows = session.execute(
        select(trials.c.sweep_id, trials.c.state, func.count().label("trials"))
        .where(trials.c.position == 1)
        .group_by(trials.c.sweep_id, trials.c.state)
    )
    counts: dict[UUID, dict[str, int]] = {sweep_id: {} for sweep_id in sweep_ids}
    for row in rows:
        counts[row.sweep_id][row.state] = row.trials
    return counts


def count_finished_by_rung(
    session: Session, sweep_ids: Collection[UUID]
) -> dict[UUID, dict[int, int]]:
    """Return for each sweep the number of ended trials at each rung."""
    rows = session.execute(
        select(Trial.sweep_id, Trial.rung, func.count().label("trials"))
        .outerjoin(Job, Job.id == Trial.job_id)
        .where(Trial.sweep_id.in_(sweep_ids))
        .where(or_(Trial.problem.is_not(None), Job.state.in_(FINAL_STATES)))
        .group_by(Trial.sweep_id, Trial.rung)
    )
    counts: dict[UUID, dict[int, int]] = {sweep_id: {} for sweep_id in sweep_ids}
    for row in rows:
        counts[row.sweep_id][row.rung] = row.trials
    return counts


def best_objective(session: Session, sweep: Sweep, *, rung: int) -> float | None:
    """Return the best validation objective of the trials that succeeded at this rung."""
    value = Job.summary[("validation", sweep.objective)].as_float()
    best = func.min(value) if METRICS[sweep.objective].lower_is_better else func.max(value)
    statement = select(best).join(Trial, Trial.job_id == Job.id)
    at_rung = (Trial.sweep_id == sweep.id, Trial.rung == rung)
    return session.scalar(statement.where(*at_rung, Job.state == JobState.SUCCEEDED))


def list_running_trials(session: Session, sweep_id: UUID) -> list[RunningTrial]:
    """Return the trials whose jobs are running, by number."""
    statement = (
        select(Trial.number, Job.id, Job.step, Job.total_steps)
        .join(Job, Job.id == Trial.job_id)
        .where(Trial.sweep_id == sweep_id, Job.state == JobState.RUNNING)
        .order_by(Trial.number)
    )
    return [RunningTrial(*row) for row in session.execute(statement)]
