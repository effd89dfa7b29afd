"""How far sweeps are, without reading their cells."""

from collections.abc import Collection, Mapping
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app.jobs.repository import FINAL
from app.queue.states import JobState
from app.queue.tables import Job
from app.sweeps import strategies
from app.sweeps.repository import STATE
from app.sweeps.strategies import Strategy
from app.sweeps.tables import Sweep, SweepCell


class Running(NamedTuple):
    """A cell that is on a device."""

    number: int
    job_id: UUID
    step: int
    total_steps: int | None


def counts(session: Session, sweep_ids: Collection[UUID]) -> dict[UUID, dict[str, int]]:
    """By sweep, how many cells are in which state, each at its last rung."""
    # Not joined with itself: a planner that knows nothing of new rows would compare each with each.
    newest_first = func.row_number().over(
        partition_by=(SweepCell.sweep_id, SweepCell.number), order_by=SweepCell.rung.desc()
    )
    each = (
        select(SweepCell.sweep_id, STATE, newest_first.label("place"))
        .outerjoin(Job, Job.id == SweepCell.job_id)
        .where(SweepCell.sweep_id.in_(sweep_ids))
        .subquery()
    )
    rows = session.execute(
        select(each.c.sweep_id, each.c.state, func.count().label("cells"))
        .where(each.c.place == 1)
        .group_by(each.c.sweep_id, each.c.state)
    )
    found: dict[UUID, dict[str, int]] = {each: {} for each in sweep_ids}
    for row in rows:
        found[row.sweep_id][row.state] = row.cells
    return found


def ended(session: Session, sweep_ids: Collection[UUID]) -> dict[UUID, dict[int, int]]:
    """By sweep, how many cells have ended at each rung."""
    rows = session.execute(
        select(SweepCell.sweep_id, SweepCell.rung, func.count().label("cells"))
        .outerjoin(Job, Job.id == SweepCell.job_id)
        .where(SweepCell.sweep_id.in_(sweep_ids))
        .where(or_(SweepCell.problem.is_not(None), Job.state.in_(FINAL)))
        .group_by(SweepCell.sweep_id, SweepCell.rung)
    )
    found: dict[UUID, dict[int, int]] = {each: {} for each in sweep_ids}
    for row in rows:
        found[row.sweep_id][row.rung] = row.cells
    return found


def share(strategy: Strategy, cells: int, ended: Mapping[int, int]) -> float:
    """Of all steps of so many cells, those of parts that have ended: `ended` of them by rung."""
    done = total = begin = 0.0
    wanted = strategies.rungs(strategy, cells)
    for rung, (end, count) in enumerate(zip(strategies.shares(strategy), wanted, strict=True)):
        done += (end - begin) * min(ended.get(rung, 0), count)
        total += (end - begin) * count
        begin = end
    return done / total if total else 0.0


def best(session: Session, sweep: Sweep, *, rung: int) -> float | None:
    """The best objective on validation of the cells that succeeded at this rung."""
    value = Job.summary["validation"][sweep.objective].as_float()
    found = func.min(value) if sweep.objective == "loss" else func.max(value)
    statement = select(found).join(SweepCell, SweepCell.job_id == Job.id)
    mine = (SweepCell.sweep_id == sweep.id, SweepCell.rung == rung)
    return session.scalar(statement.where(*mine, Job.state == JobState.SUCCEEDED))


def running(session: Session, sweep_id: UUID) -> list[Running]:
    """By number."""
    statement = (
        select(SweepCell.number, Job.id, Job.step, Job.total_steps)
        .join(Job, Job.id == SweepCell.job_id)
        .where(SweepCell.sweep_id == sweep_id, Job.state == JobState.RUNNING)
        .order_by(SweepCell.number)
    )
    return [Running(*row) for row in session.execute(statement)]
