"""Progress of sweeps, computed without loading their trials."""

from collections.abc import Collection, Mapping
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app.jobs.repository import FINAL_STATES
from app.queue.states import JobState
from app.queue.tables import Job
from app.sweeps import strategies
from app.sweeps.repository import TRIAL_STATE
from app.sweeps.strategies import Strategy
from app.sweeps.tables import Sweep, Trial


class RunningTrial(NamedTuple):
    """A trial whose job is running."""

    number: int
    job_id: UUID
    step: int
    total_steps: int | None


def state_counts(session: Session, sweep_ids: Collection[UUID]) -> dict[UUID, dict[str, int]]:
    """Return for each sweep the number of trials in each state, each at its last rung."""
    # A window function, not a self-join: without statistics of new rows the planner would compare
    # every row with every other.
    newest_first = func.row_number().over(
        partition_by=(Trial.sweep_id, Trial.number), order_by=Trial.rung.desc()
    )
    trials = (
        select(Trial.sweep_id, TRIAL_STATE, newest_first.label("position"))
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


def finished_per_rung(session: Session, sweep_ids: Collection[UUID]) -> dict[UUID, dict[int, int]]:
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


def completed_fraction(strategy: Strategy, trials: int, finished: Mapping[int, int]) -> float:
    """Return the fraction of all training steps that is done, 0 to 1.

    `finished` gives the number of ended trials by rung; running trials count as not started.
    """
    done = total = begin = 0.0
    planned = strategies.trials_per_rung(strategy, trials)
    budgets = strategies.rung_budgets(strategy)
    for rung, (end, count) in enumerate(zip(budgets, planned, strict=True)):
        done += (end - begin) * min(finished.get(rung, 0), count)
        total += (end - begin) * count
        begin = end
    return done / total if total else 0.0


def best_objective(session: Session, sweep: Sweep, *, rung: int) -> float | None:
    """Return the best validation objective of the trials that succeeded at this rung."""
    value = Job.summary["validation"][sweep.objective].as_float()
    best = func.min(value) if sweep.objective == "loss" else func.max(value)
    statement = select(best).join(Trial, Trial.job_id == Job.id)
    at_rung = (Trial.sweep_id == sweep.id, Trial.rung == rung)
    return session.scalar(statement.where(*at_rung, Job.state == JobState.SUCCEEDED))


def running_trials(session: Session, sweep_id: UUID) -> list[RunningTrial]:
    """Return the trials whose jobs are running, by number."""
    statement = (
        select(Trial.number, Job.id, Job.step, Job.total_steps)
        .join(Job, Job.id == Trial.job_id)
        .where(Trial.sweep_id == sweep_id, Job.state == JobState.RUNNING)
        .order_by(Trial.number)
    )
    return [RunningTrial(*row) for row in session.execute(statement)]
