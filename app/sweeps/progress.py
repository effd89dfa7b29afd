"""How far sweeps are, without reading their cells."""

from collections.abc import Collection
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from app.jobs.states import JobState
from app.jobs.tables import Job
from app.sweeps.repository import STATE
from app.sweeps.tables import Sweep, SweepCell


class Running(NamedTuple):
    """A cell that is on a device."""

    number: int
    job_id: UUID
    step: int
    total_steps: int | None


def counts(session: Session, sweep_ids: Collection[UUID]) -> dict[UUID, dict[str, int]]:
    """By sweep, how many cells are in which state, each at its last rung."""
    later = aliased(SweepCell)
    is_last = ~(
        select(later.number)
        .where(
            later.sweep_id == SweepCell.sweep_id,
            later.number == SweepCell.number,
            later.rung > SweepCell.rung,
        )
        .exists()
    )
    rows = session.execute(
        select(SweepCell.sweep_id, STATE, func.count().label("cells"))
        .outerjoin(Job, Job.id == SweepCell.job_id)
        .where(SweepCell.sweep_id.in_(sweep_ids), is_last)
        .group_by(SweepCell.sweep_id, STATE)
    )
    found: dict[UUID, dict[str, int]] = {each: {} for each in sweep_ids}
    for row in rows:
        found[row.sweep_id][row.state] = row.cells
    return found


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
