"""The curves of jobs, thinned to what a picture can show."""

from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from pydantic import Field
from sqlalchemy import Row, func, literal, select, true
from sqlalchemy.orm import Session

from app.http.fields import View
from app.jobs import repository
from app.queue.tables import Job, MetricPoint
from lora_core.specs.data import Split

SMALL = 40  # points of a small curve


class Curve(View):
    """One figure of one part by step.

    With more points than were asked for it comes in pieces of equally many steps: `values` are
    their means, `low` and `high` their extremes, so that no peak is lost.
    """

    split: str
    name: str
    points: int = Field(description="That there are.")
    steps: list[int] = Field(description="Of a piece the last.")
    values: list[float | None] = Field(description="null where one is not finite.")
    low: list[float | None] | None = Field(description="Of each piece; null: nothing was thinned.")
    high: list[float | None] | None


class Curves(View):
    """The curves of a job. Its stream after `seq` goes on from here."""

    seq: int
    data: list[Curve]


def read(session: Session, job_id: UUID, *, most: int, names: Sequence[str] = ()) -> Curves:
    """Every curve, or those of these names, of at most so many points. Raises `JobNotFound`."""
    seq = repository.get(session, job_id).stream_seq
    curve = (MetricPoint.split, MetricPoint.name)
    extent = (func.count(), func.min(MetricPoint.step), func.max(MetricPoint.step))
    found = select(*curve, *extent).where(MetricPoint.job_id == job_id).group_by(*curve)
    if names:  # with the parts, so that the index leads to them
        found = found.where(MetricPoint.split.in_(tuple(Split)), MetricPoint.name.in_(names))
    rows = session.execute(found.order_by(*curve)).all()
    return Curves(seq=seq, data=[_curve(session, job_id, row, most) for row in rows])


def small_curves(session: Session, jobs: Sequence[Job]) -> dict[UUID, list[float]]:
    """The training loss of many jobs in few points each, found one by one in the index."""
    numbers = select(literal(0).label("n")).cte("numbers", recursive=True)
    numbers = numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n < SMALL - 1))
    place = 1 + (Job.step - 1) * numbers.c.n // (SMALL - 1)  # from the first step to the newest
    there = (  # the last point up to that place
        select(MetricPoint)
        .where(MetricPoint.job_id == Job.id, MetricPoint.split == Split.TRAIN)
        .where(MetricPoint.name == "loss", MetricPoint.step <= place)
        .order_by(MetricPoint.step.desc())
        .limit(1)
        .correlate(Job, numbers)
    )
    # Not joined: a planner may then read all points to find out which these are.
    step, value = (
        there.with_only_columns(column).scalar_subquery()
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


def _curve(session: Session, job_id: UUID, found: Row[str, str, int, int, int], most: int) -> Curve:
    split, name, points, first, last = found
    thinned = points > most
    piece = (MetricPoint.step - first) // ((last - first) // most + 1 if thinned else 1)
    value = MetricPoint.value
    finite = func.count(value) == func.count()
    rows = session.execute(
        select(
            func.max(MetricPoint.step), func.avg(value), func.min(value), func.max(value), finite
        )
        .where(MetricPoint.job_id == job_id, MetricPoint.split == split, MetricPoint.name == name)
        .group_by(piece)
        .order_by(func.max(MetricPoint.step))
    ).all()
    return Curve(
        split=split,
        name=name,
        points=points,
        steps=[step for step, *_ in rows],
        values=[mean if whole else None for _, mean, _, _, whole in rows],
        low=[low for _, _, low, _, _ in rows] if thinned else None,
        high=[high for _, _, _, high, _ in rows] if thinned else None,
    )
