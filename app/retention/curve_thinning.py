"""Thinning of curves: which metric points an ended job keeps.

A running job logs six metrics about every hundredth of its steps, which is most of what it stores.
After its end, each curve keeps its first and last point and the extremes in between. The learning
rate, speed and memory of a job that succeeded are in its summary, so those points are all deleted.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

from app.database.engines import Database
from app.queue.enums import JobState
from app.retention import repository
from app.retention.repository import CurvePoint, Curves

SUMMARIZED_METRICS = frozenset(
    ("learning_rate", "reviews_per_second", "tokens_per_second", "peak_memory_mb")
)
PAGE_SIZE = 25  # jobs per query
BATCH_SIZE = 1000  # points that one transaction deletes


class ThinningProgress(NamedTuple):
    """How many points were deleted, and after which job to go on; None: this was the last page."""

    points: int
    last: UUID | None


def thin_curves_page(
    database: Database, *, max_points: int | None, after: UUID | None = None, dry_run: bool = False
) -> ThinningProgress:
    """Thin the curves of one page of ended jobs; a dry run only counts.

    `max_points` is the limit of each curve; None: all points are kept. Any number of processes may
    do this at once, because the points of an ended job do not change.
    """
    if max_points is None:
        return ThinningProgress(0, None)
    with database.read() as session:
        jobs = repository.list_unthinned_jobs(session, after=after, limit=PAGE_SIZE)
        surplus = {
            job.id: list(_surplus(repository.read_curves(session, job.id), job.state, max_points))
            for job in jobs
        }
    if jobs and not dry_run:
        for job_id, numbers in surplus.items():
            for start in range(0, len(numbers), BATCH_SIZE):
                with database.write() as session:
                    batch = numbers[start : start + BATCH_SIZE]
                    repository.delete_metric_points(session, job_id, batch)
        with database.write() as session:
            repository.mark_thinned(session, [job.id for job in jobs])
    last = jobs[-1].id if len(jobs) == PAGE_SIZE else None
    return ThinningProgress(sum(map(len, surplus.values())), last)


def _surplus(curves: Curves, state: JobState, max_points: int) -> Iterator[int]:
    """Yield the sequence numbers of the points that the job does not keep."""
    for (_, name), points in curves.items():
        summarized = state == JobState.SUCCEEDED and name in SUMMARIZED_METRICS
        kept = set() if summarized else points_to_keep(points, max_points)
        yield from (point.seq for point in points if point.seq not in kept)


def points_to_keep(points: Sequence[CurvePoint], max_points: int) -> set[int]:
    """Return the sequence numbers of at most `max_points` points of a curve, given by step.

    They are the first and the last point, and the lowest and the highest one in each of equally
    long ranges of steps, so that a chart keeps its shape and its range.
    """
    if len(points) <= max_points:
        return {point.seq for point in points}
    first, last = points[0], points[-1]
    range_steps = (last.step - first.step) // ((max_points - 2) // 2) + 1
    ranges: dict[int, list[tuple[float, int]]] = {}
    for seq, step, value in points:
        if value is not None:
            ranges.setdefault((step - first.step) // range_steps, []).append((value, seq))
    extremes = (extreme(values)[1] for values in ranges.values() for extreme in (min, max))
    return {first.seq, last.seq, *extremes}
