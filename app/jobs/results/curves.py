"""The curves of jobs, downsampled for plotting."""

from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Row, func, literal, select, true
from sqlalchemy.orm import Session

from app.jobs import repository
from app.jobs.schemas import Curve, Curves
from app.queue.tables import Job, MetricPoint
from lora_core.specs.data import Split

SPARKLINE_POINTS = 40


def list_curves(
    session: Session, job_id: UUID, *, max_points: int, names: Sequence[str] = ()
) -> Curves:
    """Return all curves, or those of these metrics, with at most `max_points` points each.

    Raises `JobNotFound`.
    """
    seq = repository.get_training_job(session, job_id).stream_seq
    curve = (MetricPoint.split, MetricPoint.name)
    extent = (func.count(), func.min(MetricPoint.step), func.max(MetricPoint.step))
    statement = select(*curve, *extent).where(MetricPoint.job_id == job_id).group_by(*curve)
    if names:  # with the splits, so that the index is used
        statement = statement.where(
            MetricPoint.split.in_(tuple(Split)), MetricPoint.name.in_(names)
        )
    rows = session.execute(statement.order_by(*curve)).all()
    return Curves(seq=seq, data=[_read_curve(session, job_id, row, max_points) for row in rows])


def sample_loss_curves(session: Session, jobs: Sequence[Job]) -> dict[UUID, list[float]]:
    """Return the training loss of many jobs in a few points each, found by index lookups."""
    numbers = select(literal(0).label("n")).cte("numbers", recursive=True)
    numbers = numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n < SPARKLINE_POINTS - 1))
    # Evenly spaced from the first step to the newest.
    target_step = 1 + (Job.step - 1) * numbers.c.n // (SPARKLINE_POINTS - 1)
    point = (  # the last one up to that step
        select(MetricPoint)
        .where(MetricPoint.job_id == Job.id, MetricPoint.split == Split.TRAIN)
        .where(MetricPoint.name == "loss", MetricPoint.step <= target_step)
        .order_by(MetricPoint.step.desc())
        .limit(1)
        .correlate(Job, numbers)
    )
    # Scalar subqueries rather than a join, for which a planner may read all points.
    step, value = (
        point.with_only_columns(column).scalar_subquery()
        for column in (MetricPoint.step, MetricPoint.value)
    )
    points = (
        select(Job.id, step.label("step"), value.label("value"))
        .join_from(Job, numbers, true())
        .where(Job.id.in_([job.id for job in jobs]))
        .distinct()
        .order_by(Job.id, "step")
    )
    curves: defaultdict[UUID, list[float]] = defaultdict(list)
    for row in session.execute(points):
        if row.value is not None:
            curves[row.id].append(row.value)
    return curves


def _read_curve(
    session: Session, job_id: UUID, curve: Row[str, str, int, int, int], max_points: int
) -> Curve:
    split, name, points, first, last = curve
    downsampled = points > max_points
    bin_steps = (last - first) // max_points + 1 if downsampled else 1
    value = MetricPoint.value
    all_finite = func.count(value) == func.count()
    rows = session.execute(
        select(
            func.max(MetricPoint.step),
            func.avg(value),
            func.min(value),
            func.max(value),
            all_finite,
        )
        .where(MetricPoint.job_id == job_id, MetricPoint.split == split, MetricPoint.name == name)
        .group_by((MetricPoint.step - first) // bin_steps)
        .order_by(func.max(MetricPoint.step))
    ).all()
    return Curve(
        split=split,
        name=name,
        points=points,
        steps=[step for step, *_ in rows],
        values=[mean if finite else None for _, mean, _, _, finite in rows],
        low=[low for _, _, low, _, _ in rows] if downsampled else None,
        high=[high for _, _, _, high, _ in rows] if downsampled else None,
    )
